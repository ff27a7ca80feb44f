/** Recorded ioctls as bytes: from the named inputs to the struct, and from the struct to the named outputs. */
import {
  type AnyStruct,
  IOMMUFD_IOCTLS,
  type IommufdIoctlName,
  iommu_hw_info_arm_smmuv3,
  type Struct,
} from '../../../spec/uapi.ts';
import { KernelError } from '../../driver/kernel.ts';
import { FILE_FD, type IommufdLab } from './iommufd-lab.ts';
import { type Fields, integer, RecordingError } from './recording.ts';

/** What a call answered: 'ok' or an errno name, and outputs by the recording's names. */
export interface Outcome {
  readonly result: string;
  readonly outputs: ReadonlyMap<string, string>;
}

/** Runs `body`. @returns 'ok' or the errno's name */
export function resultOf(body: () => void): string {
  try {
    body();
    return 'ok';
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    throw error;
  }
}

/** Bytes printed as `q:` 64-bit words or `x:` single bytes. @throws RecordingError */
export function parseBytes(text: string, line: number): Uint8Array {
  const body = text.slice(2);
  if (body === '') return new Uint8Array(0);
  if (text.startsWith('x:') && /^([0-9a-f]{2})+$/.test(body)) return Uint8Array.from(Buffer.from(body, 'hex'));
  const words = body.split(',');
  if (!text.startsWith('q:') || words.some((word) => !/^[0-9a-f]{1,16}$/.test(word)))
    throw new RecordingError(`scenario.txt:${line}: '${text.slice(0, 40)}' is no data`);
  const bytes = new Uint8Array(words.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, word] of words.entries()) view.setBigUint64(i * 8, BigInt(`0x${word}`), true);
  return bytes;
}

/** Bytes as `q:` words; the last one may be filled up with zeros. */
export function printWords(bytes: Uint8Array): string {
  const padded = new Uint8Array(Math.ceil(bytes.length / 8) * 8);
  padded.set(bytes);
  const view = new DataView(padded.buffer);
  const words: string[] = [];
  for (let at = 0; at < padded.length; at += 8) words.push(view.getBigUint64(at, true).toString(16).padStart(16, '0'));
  return `q:${words.join(',')}`;
}

/** `area+0x10`, or a number. */
export function address(lab: IommufdLab, text: string, line: number): bigint {
  const at = text.indexOf('+');
  if (at < 0) return integer(text, line);
  const name = text.slice(0, at);
  const base = name === 'bad' ? NEVER_MAPPED : lab.area(name).va;
  return base + integer(text.slice(at + 1), line);
}

/** The area `bad` of the recordings. */
const NEVER_MAPPED = 0x5000000000n;

/** Inputs of the first recording by the names of the C struct. */
function canonical(name: string, inputs: Fields): Fields {
  const out = new Map(inputs);
  const rename = (from: string, to: string): void => {
    const value = out.get(from);
    if (value === undefined) return;
    out.delete(from);
    out.set(to, value);
  };
  rename('depth', 'veventq_depth');
  rename('entries', 'entry_num');
  if (name === 'IOMMU_IOAS_MAP' && !out.has('user_va')) out.set('user_va', 'vm+0x0');
  if (name === 'IOMMU_GET_HW_INFO' && !out.has('data_len')) setData(out, iommu_hw_info_arm_smmuv3.bytes);
  const ste = out.get('ste');
  out.delete('ste');
  if (ste !== undefined && out.get('data_type') !== '0') setData(out, 16, `q:${ste}`);
  const cmds = out.get('cmds');
  out.delete('cmds');
  if (cmds !== undefined) {
    out.set('data_type', '1');
    out.set('entry_len', '16');
    setData(out, undefined, cmds === '' ? undefined : `q:${cmds.slice(1, -1).replaceAll('][', ',')}`);
  }
  return out;
}

function setData(out: Map<string, string>, length: number | undefined, data?: string): void {
  out.set('data_uptr', 'buf+0x0');
  if (length !== undefined) out.set('data_len', String(length));
  if (data !== undefined) out.set('data', data);
}

/** Fields of a line that are not fields of the struct. */
const NOT_IN_STRUCT = new Set(['size', 'argsz', 'tail', 'data', 'devid']);

/** The recording's name of a struct field. */
function fieldName(ioctl: string, name: string): string {
  return ioctl === 'IOMMU_GET_HW_INFO' && name === 'data_type' ? 'in_data_type' : name;
}

/** The bytes of a call's struct, with its tail. @throws RecordingError for a field that the struct does not have */
export function encodeCall(lab: IommufdLab, name: string, struct: AnyStruct, inputs: Fields, line: number): Uint8Array {
  const sizeName = struct.names[0] ?? 'size';
  const sizeText = inputs.get(sizeName);
  const size = sizeText === undefined ? struct.bytes : Number(integer(sizeText, line));
  const tail = inputs.get('tail');
  const tailBytes = tail === undefined ? new Uint8Array(0) : parseBytes(tail, line);
  const bytes = new Uint8Array(Math.max(size, struct.bytes + tailBytes.length));
  const codec = struct as Struct;
  codec.set(bytes, sizeName, size);
  bytes.set(tailBytes, struct.bytes);
  // `data` is a pointer of one struct, and the bytes at a pointer everywhere else.
  const isPointer = (key: string): boolean => key === 'data' && struct.names.includes('data');
  for (const [key, text] of inputs) {
    if (NOT_IN_STRUCT.has(key) && !(isPointer(key) && !/^[qx]:/.test(text))) continue;
    setField(lab, codec, bytes, fieldName(name, key), text, line);
  }
  return bytes;
}

function setField(lab: IommufdLab, codec: Struct, bytes: Uint8Array, name: string, text: string, line: number): void {
  if (!codec.names.includes(name)) throw new RecordingError(`scenario.txt:${line}: ${codec.name} has no ${name}`);
  const { width, count, signed } = codec.field(name);
  const value = text === 'file' ? BigInt(FILE_FD) : address(lab, text, line);
  if (count !== undefined) {
    const elements = Array.from({ length: count }, (_, i) => Number((value >> BigInt(8 * width * i)) & 0xffn));
    codec.set(bytes, name, elements as unknown as number);
  } else codec.set(bytes, name, (width === 8 ? value : Number(signed ? value : BigInt.asUintN(32, value))) as number);
}

/** What buffers hold before the call, where it is not what the line says. */
const FILL: Readonly<Record<string, number>> = { IOMMU_IOAS_IOVA_RANGES: 0xee, IOMMU_GET_HW_INFO: 0xee };
/** The pointer field whose memory the kernel writes. */
const WRITTEN: Readonly<Record<string, string>> = {
  IOMMU_IOAS_IOVA_RANGES: 'allowed_iovas',
  IOMMU_GET_HW_INFO: 'data_uptr',
  IOMMU_HWPT_GET_DIRTY_BITMAP: 'data',
};

/** Runs one recorded iommufd ioctl. `wanted` are the outputs that the recording names. */
export function runIoctl(lab: IommufdLab, name: string, recorded: Fields, wanted: Fields, line: number): Outcome {
  if (!Object.hasOwn(IOMMUFD_IOCTLS, name)) throw new RecordingError(`scenario.txt:${line}: unknown ioctl ${name}`);
  const ioctl = IOMMUFD_IOCTLS[name as IommufdIoctlName];
  const inputs = canonical(name, recorded);
  const bytes = encodeCall(lab, name, ioctl.struct, inputs, line);
  const buffer = fillBuffer(lab, name, inputs, line);
  const result = resultOf(() => lab.ctx.ioctl(ioctl.request, bytes));
  const outputs = new Map<string, string>();
  for (const key of wanted.keys()) outputs.set(key, readOutput(lab, name, ioctl.struct, bytes, key));
  const pointer = WRITTEN[name];
  const text = pointer === undefined ? undefined : inputs.get(pointer);
  if (text?.startsWith('buf+')) {
    const changed = changedBytes(lab, buffer, Number(integer(text.slice(4), line)));
    if (changed !== '' && !isFirstFormat(wanted)) outputs.set('out_data', changed);
  }
  return { result, outputs };
}

/** The first recording prints hardware information by field and no buffers. */
const isFirstFormat = (wanted: Fields): boolean => wanted.has('idr') || wanted.has('caps');

/** Puts the line's data into the buffer, all else as the recorder left it. @returns the whole buffer before the call */
function fillBuffer(lab: IommufdLab, name: string, inputs: Fields, line: number): Uint8Array {
  const { pages } = lab.area('buf');
  const before = new Uint8Array(Number(pages.size)).fill(FILL[name] ?? 0);
  const data = inputs.get('data');
  const at = [...inputs].find(([key, text]) => key !== 'data' && text.startsWith('buf+'));
  if (data !== undefined && /^[qx]:/.test(data) && at !== undefined) {
    const offset = Number(integer(at[1].slice(4), line));
    before.set(parseBytes(data, line).subarray(0, before.length - offset), offset);
  }
  pages.write(0, before);
  return before;
}

/** From `offset` to the last changed byte, rounded up to 8. */
function changedBytes(lab: IommufdLab, before: Uint8Array, offset: number): string {
  const after = lab.area('buf').pages.read(0, before.length);
  let last = after.length - 1;
  while (last >= offset && after[last] === before[last]) last--;
  if (last < offset) return '';
  return printWords(after.subarray(offset, Math.min(after.length, offset + Math.ceil((last + 1 - offset) / 8) * 8)));
}

/** Outputs of the first recording that are no fields of the struct. */
const RENAMED: Readonly<Record<string, string>> = {
  type: 'out_data_type',
  caps: 'out_capabilities',
  max_pasid_log2: 'out_max_pasid_log2',
};

function readOutput(lab: IommufdLab, name: string, struct: AnyStruct, bytes: Uint8Array, key: string): string {
  if (key === 'out_data') return '';
  if (name === 'IOMMU_GET_HW_INFO' && ['idr', 'iidr', 'aidr'].includes(key)) return hardwareInfo(lab, key);
  const known = RENAMED[key] ?? key;
  const field = struct.names.includes(known) ? known : known.replace(/^out_/, '');
  const value = struct.decode(bytes)[field];
  if (value === undefined) throw new RecordingError(`${struct.name} has no ${key}`);
  if (key === 'out_veventq_fd' || key === 'out_fault_fd') return Number(value) === 0 ? '0' : 'fd';
  return String(value);
}

function hardwareInfo(lab: IommufdLab, key: string): string {
  const struct = iommu_hw_info_arm_smmuv3;
  const info = struct.decode(lab.area('buf').pages.read(0, struct.bytes));
  if (key === 'idr') return info.idr.map((value) => value.toString(16)).join(',');
  return (key === 'iidr' ? info.iidr : info.aidr).toString(16);
}

/** Whether an output is what the recording says: numbers by value. */
export function sameOutput(key: string, got: string, recorded: string): boolean {
  if (got === recorded) return true;
  if (key === 'idr' || !/^(0x[0-9a-f]+|\d+)$/i.test(recorded) || !/^\d+$/.test(got)) return false;
  return BigInt(got) === BigInt(recorded);
}
