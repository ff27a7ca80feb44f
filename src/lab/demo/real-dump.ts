/** The first half of the demonstration: the memory of a real Linux driving an SMMUv3, decoded and translated. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fromQwords, toQwords } from '../../../spec/index.ts';
import { decode } from '../../inspect/decode.ts';
import { capsFromRegisters } from '../../inspect/dump.ts';
import { openSource, snapshotOf } from '../../inspect/source.ts';
import { type TranslationResult, translateOnImage } from '../../inspect/translate.ts';
import type { DemoLine } from './nested-vm.ts';

const DUMP = 'examples/dumps/linux-7.2-qemu-smmuv3-stage1';
/** VFIO mapped two ranges for the test device; then it wrote to the read-only one, and the kernel logged the event. */
const PHASE = 'vfio-faulted';
const SID = 0x28;
const MAPPED = 0x10000n;
const READ_ONLY = 0x20010n;
const LOG = 'dmesg-smmu.txt';

/** The package's own folder: above the build or the sources, whichever runs. */
function packageRoot(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, DUMP)) && dirname(dir) !== dir) dir = dirname(dir);
  return dir;
}

/** Runs it. Lines come in order through `say`. */
export function runRealDump(say: (line: DemoLine) => void): void {
  const dir = join(packageRoot(), DUMP);
  const { registers, memory } = snapshotOf(openSource([dir], new Map()), PHASE);
  const images = memory();
  const caps = capsFromRegisters(registers);
  if (caps === undefined) throw new Error(`${dir}: no ID registers`);
  say({ text: `${DUMP}, phase ${PHASE}: Linux 7.2.13 on QEMU's SMMUv3` });
  const write = (iova: bigint): TranslationResult =>
    translateOnImage(images, registers, caps, { sid: SID, iova, write: true });

  const fine = write(MAPPED);
  const steOf = fine.steps.find(({ what }) => what === 'STE');
  if (steOf !== undefined) {
    const ste = decode('ste', fromQwords(steOf.words.map(BigInt)), { caps });
    say({ text: `STE of StreamID 0x28 at ${steOf.address}: ${steOf.words.slice(0, 2).join(' ')} 0x0 ...` });
    for (const field of ste.fields)
      if (field.ignored !== true && field.value !== '0x0')
        say({ text: `  ${field.bits.padEnd(6)} ${field.name.padEnd(13)} ${field.meaning ?? field.value}` });
  }
  say({ text: `The device writes IOVA ${fine.iova}; the hardware model walks the kernel's own tables:` });
  for (const { what, level, address, meaning, words } of fine.steps)
    say({
      text: `  ${`${what}${level === undefined ? '' : ` level ${level}`}`.padEnd(11)} ${address.padEnd(10)} ${words[0]?.padEnd(15)} ${meaning}`,
    });
  say({ text: `  ${fine.reason}` });

  const refused = write(READ_ONLY);
  say({ text: `It writes IOVA ${refused.iova}: ${refused.reason}` });
  const words = toQwords(fromQwords((refused.event?.words ?? []).map(BigInt))).map((word) =>
    word.toString(16).padStart(16, '0'),
  );
  say({ text: `  model:  ${refused.event?.summary ?? ''}` });
  const logged = readFileSync(join(dir, LOG), 'utf8')
    .split('\n')
    .find((line) => line.includes('F_PERMISSION') && line.includes(`0x${READ_ONLY.toString(16)}`));
  say({ text: `  kernel: ${logged?.replace(/^.*event: /, '') ?? ''}` });
  say({ text: `  record: ${words.join(' ')}` });
}
