/** The recorded dump that ships with the package, and what its recorder decoded from it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const DIRECTORY = new URL('../../examples/dumps/linux-7.2-qemu-smmuv3-stage1/', import.meta.url);

/** Path of a file of the recording. */
export const recorded = (name: string): string => fileURLToPath(new URL(name, DIRECTORY));

const stream = z.object({
  sid: z.string(),
  ste_gpa: z.string(),
  config: z.number(),
  ste: z.array(z.string()),
  cds: z
    .array(
      z.object({
        ssid: z.number(),
        cd_gpa: z.string(),
        asid: z.number(),
        t0sz: z.number(),
        ttb0: z.string(),
        cd: z.array(z.string()),
      }),
    )
    .optional(),
});

const manifest = z.object({
  phases: z.array(
    z.looseObject({
      phase: z.string(),
      registers: z.record(z.string(), z.object({ offset: z.string(), bits: z.number(), value: z.string() })),
      streams: z.array(stream),
      dumps: z.array(z.looseObject({ what: z.string(), gpa: z.string(), length: z.number(), file: z.string() })),
    }),
  ),
});

/** The manifest's own truth. */
export const MANIFEST = manifest.parse(JSON.parse(readFileSync(recorded('manifest.json'), 'utf8')));

/** An abort entry, which the dump leaves out as all-default: 0x28 of vfio-blocked is one. */
export const isAbort = (ste: readonly string[]): boolean =>
  ste.every((word, i) => BigInt(word) === (i === 0 ? 1n : 0n));
