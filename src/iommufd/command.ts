/** Commands as handlers see them: the C structs of spec/uapi, field for field. */
import type { IOMMUFD_IOCTLS, IommufdIoctlName, StructField, StructFieldValue } from '../../spec/uapi.ts';

/** The fields of an ioctl's struct. */
export type FieldsOf<K extends IommufdIoctlName> = (typeof IOMMUFD_IOCTLS)[K]['struct']['fields'];

/** A command: 8-byte fields are bigints, narrower ones numbers. Handlers store outputs in it. */
export type Command<K extends IommufdIoctlName> = {
  -readonly [F in keyof FieldsOf<K>]: StructFieldValue<Extract<FieldsOf<K>[F], StructField>>;
};

/** Fields that hold a user address. A typed call may give the buffer itself. */
export type PointerField = 'data_uptr' | 'allowed_iovas' | 'data';

/** Arguments of a typed call: what is left out is zero; a pointer may be an address or a buffer. */
export type TypedArgs<K extends IommufdIoctlName> = {
  readonly [F in keyof FieldsOf<K>]?: F extends PointerField
    ? bigint | Uint8Array
    : StructFieldValue<Extract<FieldsOf<K>[F], StructField>>;
};
