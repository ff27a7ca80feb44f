/** Bad input or usage: the CLI prints the message as one line on stderr and exits with 2. */
export class CliError extends Error {
  override readonly name = 'CliError';
}
