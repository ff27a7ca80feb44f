import { describe, expect, test } from 'vitest';
import { runCmdqvVm } from '../../src/lab/demo/cmdqv-vm.ts';
import { run } from '../cli/run.ts';

describe('a VM with a command queue of its own [tegra241-cmdqv 9, 10, 11]', () => {
  const lines: string[] = [];
  runCmdqvVm(({ text }) => lines.push(text));
  const text = lines.join('\n');

  test('the VMID that the guest writes is replaced by that of its VINTF', () => {
    expect(text).toContain('VINTF 1 with VMID 1; its page 0, 0x10000 bytes, is mapped into the VM');
    expect(text).toContain('written 0011777700000012 0000000000010001, executed 0011000100000012 0000000000010001');
  });

  test('one register write, the doorbell, and the device sees the new page', () => {
    expect(text).toContain("register writes: 1, the guest's doorbell");
    expect(text).toMatch(/DMA lands at GPA 0x80001000: the TLB still has the translation/);
    expect(text).toContain('DMA lands at GPA 0x80002000');
  });

  test('a StreamID of its own is replaced, another one refused; the VMM is told', () => {
    expect(text).toContain('written 0000002000000040 0000000000000034, executed 0000000800000040 0000000000000034');
    expect(text).toContain('CERROR_ILL_ACCESS');
    expect(text).toContain('LVCMDQs in error 0x1 0x0');
    expect(text).toContain('acknowledges: done');
    expect(text).toContain('hardware that still names VMID 1: none');
  });

  test('`smmulab demo` prints it as part C, within 100 columns', async () => {
    const { code, out } = await run(['demo']);
    expect(code).toBe(0);
    const part = out.slice(out.indexOf('C. '));
    expect(part.split('\n').every((line) => line.length <= 100)).toBe(true);
    expect(part).toContain('VINTF 1');
  });
});
