/**
 * For property tests of one's own: the stack in one object ({@link Lab}), operations as data, arbitraries, a model of the
 * VMID rules, invariants, and what `smmulab check` is made of. docs/testing.md shows how they go together.
 */
export { default as fc } from 'fast-check';
export * from './arbitraries/case.ts';
export * from './arbitraries/operations.ts';
export * from './arbitraries/steps.ts';
export * from './arbitraries/structures.ts';
export { twinCase } from './arbitraries/twins.ts';
export * from './campaign.ts';
export * from './case.ts';
export * from './coverage.ts';
export * from './flavour.ts';
export * from './flavours/index.ts';
export * from './guest.ts';
export * from './guest-stage1.ts';
export * from './lab.ts';
export * from './ledger.ts';
export * from './machine.ts';
export * from './mappings.ts';
export * from './model.ts';
export * from './operations/guest-command.ts';
export * from './operations.ts';
export * from './properties/index.ts';
export * from './property.ts';
export * from './reduce.ts';
export * from './stes.ts';
export * from './story.ts';
export * from './windows.ts';
