import { expect, test } from 'vitest';
import { painter, tableLines } from '../../src/cli/text.ts';

test('a table of more rows than a call takes arguments: a Stream table of 2^18 valid entries', () => {
  const rows = Array.from({ length: 2 ** 18 }, (_, i) => ({ cells: [`0x${i.toString(16)}`, 'BYPASS'] }));
  const lines = tableLines(rows, painter(false));
  expect(lines).toHaveLength(2 ** 18);
  expect(lines[0]).toBe('0x0      BYPASS');
});
