/** Tables of every layout, and the rules about them. One source of truth for all other parts. */
export * from './caps.ts';
export * from './cd.ts';
export * from './commands.ts';
export * from './descriptors.ts';
export * from './encodings.ts';
export * from './events.ts';
export * from './id-registers.ts';
export * from './l1cd.ts';
export * from './l1std.ts';
export * from './layout.ts';
export * from './legality/command.ts';
export * from './pri.ts';
export * from './registers.ts';
export * from './ste.ts';
export * from './tegra241.ts';
export * from './uapi.ts';
export * from './vms.ts';
