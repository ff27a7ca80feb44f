/** Loads the reader of one kind alone: printing one record should not load what all kinds need. */
import type { RecordKind } from '../record.ts';
import type { Reader } from './reader.ts';

const LOADERS: Readonly<Record<RecordKind, () => Promise<Reader>>> = {
  ste: async () => (await import('./ste.ts')).reader,
  cd: async () => (await import('./cd.ts')).reader,
  l1std: async () => (await import('./l1std.ts')).reader,
  l1cd: async () => (await import('./l1cd.ts')).reader,
  cmd: async () => (await import('./cmd.ts')).reader,
  event: async () => (await import('./event.ts')).reader,
  pte1: async () => (await import('./descriptor.ts')).reader1,
  pte2: async () => (await import('./descriptor.ts')).reader2,
};

/** The reader of a kind. */
export const loadReader = (kind: RecordKind): Promise<Reader> => LOADERS[kind]();
