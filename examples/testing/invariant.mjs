/**
 * An invariant of one's own, asked after each operation of many drawn cases: no two devices of different VMs ever carry
 * one VMID. Run it: node examples/testing/invariant.mjs
 */
import { STE } from 'smmulab/spec';
import { fc, forEachTranslatingSte, labCase, runCase } from 'smmulab/testing';

/** A property: a name, which operations to draw and how often, and a monitor that looks at the hardware. */
const noSharedVmid = {
  name: 'no-shared-vmid',
  title: 'streams of two VMs never carry one VMID on one SMMU',
  foreign: true,
  weights: { hwptAlloc: 3, viommuAlloc: 4, vdeviceAlloc: 3, nestedAlloc: 5, attach: 8, detach: 3, destroy: 5 },
  monitor: ({ lab, model }) => ({
    after: () => {
      for (const smmu of lab.machine.smmus) {
        const owners = new Map();
        let broken = null;
        forEachTranslatingSte(lab.machine.memory, smmu, (sid, ste) => {
          const device = lab.devices.find((one) => one.smmu === smmu.name && one.sid === sid);
          const vmid = STE.num(ste, 'S2VMID');
          const ioas = device === undefined ? null : model.ioasOf(device.name);
          if (vmid === 0 || ioas === null) return;
          const other = owners.get(vmid) ?? ioas;
          if (other !== ioas) broken = `${smmu.name}: VMID ${vmid} serves ${other} and ${ioas}`;
          owners.set(vmid, ioas);
        });
        if (broken !== null) return { rule: 'no-shared-vmid', message: broken };
      }
      return null;
    },
  }),
};

fc.assert(
  fc.property(labCase(noSharedVmid, { policy: 'at-attach' }), (one) => runCase(noSharedVmid, one).finding === null),
  { numRuns: 100, seed: 1 },
);
console.log('no-shared-vmid holds for 100 cases');
