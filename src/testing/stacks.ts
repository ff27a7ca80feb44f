/** Errors without stacks. */

/** Runs `body`. Where errors are answers, most of their cost would be the stack that nobody looks at. */
export function withoutStacks<T>(body: () => T): T {
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return body();
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}
