/** Where Linux 7.2 breaks a rule that this driver keeps. Each has its reason and its effect in docs/deviations.md. */
export const QUIRK_NAMES = [
  /** No CFGI_STE with Leaf=0 after an L1STD became valid (`arm_smmu_init_l2_strtab`). */
  'l1std-no-cfgi',
  /** What a timed-out CMD_SYNC should have protected is freed at once. */
  'sync-timeout-ignored',
  /** A CMD_ATC_INV that the device never answered counts as done. */
  'atc-timeout-ignored',
  /** Stalled transactions are not ended when their stream leaves its domain. */
  'stalls-on-detach',
  /** ATS going off: endpoint, STE, then ATC_INV; the specification has ATC_INV before the STE. */
  'ats-off-after-ste',
  /** A vSTE that aborts leaves ATS on in the endpoint. */
  'abort-vste-keeps-ats',
  /** A stream changes its VM while events of the old one still lie in the Event queue. */
  'events-not-drained',
  /** A RID leaves stage 1 while PASIDs keep the CD table: its ASID is flushed before its CD is cleared. */
  'cd0-after-tlbi',
  /** A VINTF whose STATUS does not follow EN stays enabled in CONFIG; its index and VMID are freed. */
  'vintf-timeout-left-enabled',
  /** A reset in operation unmaps VCMDQs that run, and leaves VMs without theirs. */
  'cmdqv-reset-in-operation',
] as const;

/** One of {@link QUIRK_NAMES}. */
export type QuirkName = (typeof QUIRK_NAMES)[number];

/** Which quirks are on: all of Linux 7.2, those named, or none. */
export type QuirkChoice = 'linux-7.2' | readonly QuirkName[];

/** The set that a choice means. @throws RangeError for an unknown name */
export function quirksOf(choice: QuirkChoice | undefined): ReadonlySet<QuirkName> {
  const names = choice === undefined ? [] : choice === 'linux-7.2' ? QUIRK_NAMES : choice;
  for (const name of names)
    if (!QUIRK_NAMES.includes(name)) throw new RangeError(`there is no quirk ${name}: ${QUIRK_NAMES.join(', ')}`);
  return new Set(names);
}
