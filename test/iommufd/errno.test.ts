import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { IOMMUFD_IOCTLS } from '../../spec/uapi.ts';
import { IommufdError } from '../../src/iommufd/index.ts';
import { cellTable } from './coverage-table.ts';
import { ERRNO_CASES } from './errno-cases.ts';
import { Lab } from './lab.ts';

/** Titles of these tests: docs/iommufd-coverage.md names them. */
const title = ({ ioctl, errno, when }: (typeof ERRNO_CASES)[number]): string => `${ioctl} ${errno}: ${when}`;

describe('each ioctl, each errno (iommufd handlers, in evaluation order)', () => {
  test.each(ERRNO_CASES.map((each) => [title(each), each] as const))(
    '%s',
    (_title, { ioctl, errno, run, lab: options }) => {
      const lab = new Lab(options);
      const call = run(lab);
      let error: unknown = null;
      try {
        call();
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(IommufdError);
      expect(error).toMatchObject({ ioctl, errno });
    },
  );
});

test('a failed ioctl says where: the check that failed is its cause, with the stack', () => {
  const thrown = (): unknown => {
    try {
      return new Lab().ctx.destroy({ id: 4711 });
    } catch (error) {
      return error;
    }
  };
  const error = thrown();
  const frames = Error.stackTraceLimit;
  expect(error).toMatchObject({ errno: 'ENOENT', message: expect.stringMatching(/^ENOENT: IOMMU_DESTROY: /) });
  const { cause } = error as IommufdError;
  expect(cause).toMatchObject({ name: 'KernelError', errno: 'ENOENT' });
  expect((cause as Error).stack).toMatch(/object-table\.ts/);
  // What others throw keeps its stack.
  expect(frames).toBeGreaterThan(0);
  expect(new Error('after it').stack).toMatch(/errno\.test\.ts/);
});

describe('docs/iommufd-coverage.md', () => {
  const doc = readFileSync(new URL('../../docs/iommufd-coverage.md', import.meta.url), 'utf8');

  test('has a row for each case, and no row without one', () => {
    const documented = [...doc.matchAll(/^\| `(IOMMU_\w+)` \| ([A-Z0-9]+) \| (.+) \|$/gm)].map(
      ([, ioctl, errno, when]) => `${ioctl} ${errno}: ${when}`,
    );
    expect(documented).toEqual(ERRNO_CASES.map(title));
  });

  test('counts the cases of each cell', () => {
    expect(doc).toContain(`\n\n${cellTable(ERRNO_CASES)}\n\n`);
  });

  test('every ioctl has a row', () => {
    expect([...new Set(ERRNO_CASES.map(({ ioctl }) => ioctl))].sort()).toEqual(Object.keys(IOMMUFD_IOCTLS).sort());
  });
});
