/** A bug from outside: a VMID that is given up keeps its TLB entries. */
export default {
  name: 'no-flush',
  story: 'A counter of deferred flushes is never looked at: a VMID that is given up keeps its TLB entries.',
  policies: ['at-attach'],
  apply({ driver }) {
    driver.invalidation = { ...driver.invalidation, flushTag: () => true };
  },
};
