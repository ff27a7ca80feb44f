/** Input that cannot be used. The message is one line: where it went wrong, what was found, what was expected. */
export class InputError extends Error {
  override readonly name = 'InputError';
}

/** "1 word", "2 words". */
export const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;
