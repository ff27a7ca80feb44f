import { describe, expect, test } from 'vitest';
import { main } from '../../src/cli/cli.ts';
import { type DemoLine, runNestedVm } from '../../src/lab/demo/nested-vm.ts';
import { runRealDump } from '../../src/lab/demo/real-dump.ts';

const textOf = (run: (say: (line: DemoLine) => void) => void): string => {
  const lines: string[] = [];
  run(({ text }) => lines.push(text));
  return lines.join('\n');
};

describe('a dump of a real kernel', () => {
  const text = textOf(runRealDump);

  test('the walk of IOVA 0x10000 visits the four tables that the recording lists, and ends in the page VFIO mapped', () => {
    for (const table of ['0x45030000', '0x4503e000', '0x4503c000', '0x4502f080']) expect(text).toContain(table);
    expect(text).toContain('goes to 0x42ab2000');
  });

  test("the model's event record is the one that the kernel logged, word for word [dmesg-smmu.txt, 24.821829]", () => {
    expect(text).toContain('record: 0000002800000013 0000020000000000 0000000000020010 0000000000000000');
    expect(text).toContain('kernel: F_PERMISSION client: 0000:00:05.0 sid: 0x28 ssid: 0x0 iova: 0x20010');
  });
});

describe('one VM on two SMMUs [linux-driver.md, VMID: proposed]', () => {
  const text = textOf(runNestedVm);

  test('each nested STE has the VMID of its vIOMMU; the S2 attached directly has one of its own', () => {
    const after = text.slice(text.indexOf('STEs after it'), text.indexOf('DMA: both'));
    expect(after).toMatch(/smmu0 0x8 +NESTED +S2VMID 2/);
    expect(after).toMatch(/smmu0 0x10 +S2_TRANS +S2VMID 1/);
    expect(after).toMatch(/smmu1 0x108 +NESTED +S2VMID 1/);
  });

  test('both devices reach the guest page; a stale translation lasts until the guest invalidates it [3.21.1]', () => {
    expect(text).toContain('GPA 0x80001000 holds "from smmu0"');
    expect(text).toContain('GPA 0x80001010 holds "from smmu1"');
    expect(text).toContain('lands at GPA 0x80001000, the old page');
    expect(text).toContain('lands at GPA 0x80006000\n');
  });

  test('the guest reads its fault with its own StreamID; the host sees the stage 2 fault of a table fetch [7.3.12]', () => {
    expect(text).toContain('0000002000000010 0000020000000000 0000000000010000 0000000000000000');
    // S2 = 1, CLASS = TT, IPA 0x80000000: the guest's level 0 table.
    expect(text).toContain('0000010800000010 0000018000000000 0000000000010000 0000000080000000');
  });

  test('every VMID is taken once and given back once', () => {
    const lines = text.split('\n').filter((line) => line.startsWith('VMID '));
    expect(lines.length).toBe(3);
    for (const line of lines)
      expect(line).toMatch(/^VMID \d of smmu\d: step \d+ \S+ takes it; step 13 \S+ gives it back$/);
  });
});

test('`smmulab demo` prints both halves within 100 columns', async () => {
  let out = '';
  const code = await main(['demo'], {
    out: (text) => (out += text),
    err: () => {},
    stdin: () => new Uint8Array(),
    color: false,
  });
  expect(code).toBe(0);
  expect(out).toMatch(/^A\. [\s\S]+\nB\. /);
  expect(Math.max(...out.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100);
});
