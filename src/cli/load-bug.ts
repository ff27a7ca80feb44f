/** Bugs by name, and bugs of one's own: modules whose default export is a `Bug` (docs/bugs.md). */
import { z } from 'zod';
import { machineShape } from '../lab/scenario-schema.ts';
import { LAB_PRESETS, type LabPreset, POLICIES } from '../testing/lab.ts';
import { type Bug, ZOO } from '../testing/zoo/index.ts';
import { CliError } from './error.ts';
import { loadDefault } from './load-module.ts';

const names = <T extends string>(values: readonly T[]) => z.array(z.enum(values as readonly [T, ...T[]])).min(1);

const shape = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9.-]{0,63}$/, 'expected lower-case words with dashes'),
  story: z.string().min(1),
  policies: names(POLICIES).optional(),
  presets: names(Object.keys(LAB_PRESETS) as LabPreset[]).optional(),
  lab: machineShape.optional(),
  apply: z.custom<Bug['apply']>((value) => typeof value === 'function', 'expected a function'),
});

/** Looks like a file, not like a name. */
const FILE = /[/\\]|\.[cm]?[jt]s$/;

async function fromModule(file: string): Promise<Bug> {
  const made = await loadDefault('bug', file);
  const checked = shape.safeParse(made);
  if (!checked.success) {
    const [issue] = checked.error.issues;
    const where = ['default export', ...(issue?.path ?? [])].map(String).join('.').replace('.', ': ');
    const said = issue?.message.replace(/^Invalid \w+: /, '') ?? 'no bug';
    throw new CliError(`--bug: ${file}: ${where}: ${said}`);
  }
  return made as Bug;
}

/** The bugs that `--bug` names: one, all, or a module's. @throws CliError */
export async function loadBugs(given: string): Promise<readonly Bug[]> {
  if (given === 'all') return ZOO;
  if (FILE.test(given)) return [await fromModule(given)];
  const bug = ZOO.find(({ name }) => name === given);
  if (bug === undefined)
    throw new CliError(
      `--bug: '${given}' is not a bug: all, a module's file, or one of ${ZOO.map(({ name }) => name).join(', ')}`,
    );
  return [bug];
}
