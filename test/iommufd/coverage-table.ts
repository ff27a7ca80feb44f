/** The first table of docs/iommufd-coverage.md: how many tests each ioctl has for each errno. */
import type { ErrnoCase } from './errno-cases.ts';

/** The table as Markdown, its ioctls in the order of the cases. */
export function cellTable(cases: readonly ErrnoCase[]): string {
  const errnos = [...new Set(cases.map(({ errno }) => errno))].sort();
  const row = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
  const rows = [...new Set(cases.map(({ ioctl }) => ioctl))].map((ioctl) => {
    const count = (errno: string): number =>
      cases.filter((each) => each.ioctl === ioctl && each.errno === errno).length;
    return row([ioctl.replace('IOMMU_', ''), ...errnos.map((errno) => count(errno) || '')]);
  });
  return [row(['', ...errnos]).replace('|  |', '| |'), `|${'---|'.repeat(errnos.length + 1)}`, ...rows].join('\n');
}
