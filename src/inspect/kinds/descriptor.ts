/** Translation table descriptors of both stages. */
import { DESCRIPTOR_TYPE, descriptorKind, pte1, pte2 } from '../../../spec/descriptors.ts';
import type { Words } from '../../../spec/layout.ts';
import { descriptorSummary, PTE1_MEANINGS, PTE2_MEANINGS } from './descriptor-words.ts';
import type { DecodeOptions, Reader, Reading } from './reader.ts';

function readDescriptor(stage: 1 | 2, words: Words, options: DecodeOptions): Reading {
  const granule = options.granule ?? '4k';
  const level = options.level ?? 3;
  const format = { ds: options.ds === true, pa52: options.pa52 === true };
  const kind = descriptorKind(words, granule, level, format);
  const layout = (stage === 1 ? pte1 : pte2)(granule, level, kind, format);
  const valid = DESCRIPTOR_TYPE.num(words, 'Valid') === 1;
  const type = level === 3 ? 'bits 1:0 = 01 are reserved' : 'a block may not stand';
  return {
    name: layout.name,
    layout,
    valid,
    meanings: stage === 1 ? PTE1_MEANINGS : PTE2_MEANINGS,
    summary: descriptorSummary,
    ignored: (name) => kind === 'invalid' && name !== 'Valid',
    problems:
      valid && kind === 'invalid'
        ? [
            {
              rule: 'PTE-TYPE',
              section: 'DDI 0487 D8.3',
              message: `${type} at level ${level} of the ${granule} granule: F_TRANSLATION`,
              fields: ['Type'],
            },
          ]
        : [],
  };
}

/** Reads stage 1 descriptors. */
export const reader1: Reader = {
  kind: 'pte1',
  bytes: DESCRIPTOR_TYPE.bytes,
  what: 'a stage 1 descriptor',
  read: (words, options) => readDescriptor(1, words, options),
};

/** Reads stage 2 descriptors. */
export const reader2: Reader = {
  kind: 'pte2',
  bytes: DESCRIPTOR_TYPE.bytes,
  what: 'a stage 2 descriptor',
  read: (words, options) => readDescriptor(2, words, options),
};
