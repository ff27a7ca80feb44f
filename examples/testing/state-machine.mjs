/**
 * The stack as a state machine of fast-check: commands with preconditions, run on the stack beside the model of the VMID
 * rules. Run it: node examples/testing/state-machine.mjs
 */
import { fc, labCommands, labSetup, s2vmidOwned, vmidCounted, vmidFree } from 'smmulab/testing';

const weights = {
  hwptAlloc: 3,
  viommuAlloc: 4,
  vdeviceAlloc: 3,
  nestedAlloc: 5,
  attach: 8,
  detach: 3,
  destroy: 6,
  dma: 4,
};

for (const policy of ['at-attach', 'viommu-only', 'at-domain-alloc', 'external']) {
  const setup = labSetup({ policy }, [s2vmidOwned, vmidFree, vmidCounted]);
  fc.assert(
    fc.property(labCommands(weights), (commands) => fc.modelRun(setup, commands)),
    { numRuns: 30, seed: 1 },
  );
  console.log(`${policy}: 30 sequences`);
}
