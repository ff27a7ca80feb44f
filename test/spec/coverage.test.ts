import { describe, expect, test } from 'vitest';
import { CD, CD_D128 } from '../../spec/cd.ts';
import { descriptorVariants } from '../../spec/descriptors.ts';
import * as idRegisters from '../../spec/id-registers.ts';
import { L1CD } from '../../spec/l1cd.ts';
import { L1STD } from '../../spec/l1std.ts';
import type { Layout } from '../../spec/layout.ts';
import { STE } from '../../spec/ste.ts';
import { VMS } from '../../spec/vms.ts';

const LAYOUTS: readonly Layout[] = [
  STE,
  CD,
  CD_D128,
  L1STD,
  L1CD,
  VMS,
  ...Object.values(idRegisters),
  ...descriptorVariants(),
];

describe('every bit of a record belongs to exactly one field', () => {
  for (const table of LAYOUTS)
    test(`${table.name}, ${table.bytes} bytes`, () => {
      expect(table.coverage()).toEqual([]);
    });
});

test('all named encodings fit their fields and are told apart', () => {
  for (const table of LAYOUTS)
    for (const name of table.names) {
      const values = Object.values(table.field(name).values ?? {});
      for (const value of values) expect(value, `${table.name}.${name}`).toBeLessThan(2 ** table.width(name));
      expect(new Set(values).size, `${table.name}.${name}`).toBe(values.length);
    }
});
