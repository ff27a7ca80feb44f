/** The Tegra241 CMDQV's driver. */
export { guestSupports, Tegra241Cmdqv, type Tegra241Options, tegra241Impl } from './cmdqv.ts';
export type { UserVintf, VintfUserPart } from './user.ts';
export type { Vcmdq, Vintf, VintfPart } from './vintf.ts';
export { vintfPart } from './vintf.ts';
