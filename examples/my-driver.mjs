/**
 * An IOMMU driver of one's own, outside the package: `smmulab check --driver examples/my-driver.mjs`.
 *
 * It drives the SMMUv3 model in the simplest way that is right. One linear Stream table for each SMMU; every paging
 * domain is a stage 2 of 39 bits in 4 KiB pages, with a VMID of its SMMU from its allocation to its end; a stream always
 * passes through "abort" on its way from one domain to the next; a nested domain puts the VM's stage 1 over a stage 2.
 * Every step that changes what hardware may have cached ends with a CMD_SYNC. It has no event queue: faults abort.
 *
 * The default export gets the kernel (memory, ids, MMIO, barriers, polls: each use with a name of your choice) and what
 * firmware says of the machine. docs/drivers.md explains the contract.
 */
import { iotlbGatherAddRange, KernelError, VIOMMU_CORE_SIZE } from 'smmulab/driver';
import * as spec from 'smmulab/spec';

const { STE, CR0, CR0ACK, CR1, STRTAB_BASE, STRTAB_BASE_CFG, CMDQ_BASE, CMDQ_PROD, CMDQ_CONS, IDR0, IDR1 } = spec;
const { HWPT_DATA_TYPE, HWPT_INVALIDATE_DATA_TYPE, VIOMMU_TYPE } = spec;

const PAGE = 4096n;
const IPA_BITS = 39;
const CMDQ_LOG2 = 7;
const LEAF = spec.pte2('4k', 3, 'page');
const TABLE = spec.pte2('4k', 2, 'table');
const FIRST_LEVEL = 1;
/** Attributes of a page: Normal write-back, inner shareable. MemAttr means something else with S2FWB, which is off. */
const NORMAL = 15;

const fail = (errno, why) => {
  throw new KernelError(errno, why);
};

/** One SMMU: registers, command queue, Stream table, VMIDs. */
class Smmu {
  constructor(kernel, node, devices) {
    this.kernel = kernel;
    this.node = node;
    this.name = node.name;
    this.entries = 2 ** CMDQ_LOG2;
    this.prod = 0;
    this.lock = kernel.lock(`my:${node.name}`);
    const idr0 = this.read(IDR0);
    const wide = IDR0.of(idr0, 'VMID16') === IDR0.fields.VMID16.values.BITS_16;
    this.vmids = kernel.ids(`vmid-${node.name}`, 1, wide ? 0xffff : 0xff);
    if (IDR0.of(idr0, 'S2P') === 0) fail('ENODEV', `${this.name} has no stage 2`);
    this.ats = IDR0.of(idr0, 'ATS') === 1;
    this.nests = IDR0.of(idr0, 'S1P') === 1;
    // May S1STALLD be set? Only where stalling can be chosen.
    this.stalls = IDR0.of(idr0, 'STALL_MODEL') === IDR0.fields.STALL_MODEL.values.STALL_TERMINATE;
    const sids = devices.filter((dev) => dev.smmu === node.name).flatMap((dev) => dev.streamIds);
    this.log2size = Math.max(6, Math.ceil(Math.log2(Math.max(0, ...sids) + 1)));
    if (this.log2size > IDR1.of(this.read(IDR1), 'SIDSIZE')) fail('ENXIO', `${this.name} lacks StreamID bits`);
    this.strtab = kernel.allocPages('my:stream-table', STE.bytes << this.log2size);
    for (let sid = 0; sid < 2 ** this.log2size; sid++) this.store(this.steAt(sid), ABORT);
    this.cmdq = kernel.allocPages('my:cmdq', spec.COMMAND_BYTES << CMDQ_LOG2);
    this.start();
  }

  at(register) {
    return this.node.base + BigInt(register.offset);
  }

  read(register) {
    return this.kernel.read32(`my:${register.name}`, this.at(register));
  }

  write(register, value) {
    this.kernel.write32(`my:${register.name}`, this.at(register), value);
  }

  /** Writes CR0 and waits until it has taken effect. */
  control(...bits) {
    const value = bits.length === 0 ? 0 : CR0.bit(...bits);
    this.write(CR0, value);
    if (!this.kernel.poll('my:cr0', () => this.read(CR0ACK) === value)) fail('ETIMEDOUT', `${this.name} ignores CR0`);
  }

  start() {
    this.control();
    const wb = { TABLE_SH: 'ISH', TABLE_OC: 'WB', TABLE_IC: 'WB', QUEUE_SH: 'ISH', QUEUE_OC: 'WB', QUEUE_IC: 'WB' };
    this.write(CR1, CR1.value(wb));
    this.write64(STRTAB_BASE, STRTAB_BASE.value64({ RA: 1, ADDR: this.strtab >> 6n }));
    this.write(STRTAB_BASE_CFG, STRTAB_BASE_CFG.value({ FMT: 'LINEAR', LOG2SIZE: this.log2size }));
    this.write64(CMDQ_BASE, CMDQ_BASE.value64({ RA: 1, ADDR: this.cmdq >> 5n, LOG2SIZE: CMDQ_LOG2 }));
    this.write(CMDQ_PROD, 0);
    this.write(CMDQ_CONS, 0);
    this.control('CMDQEN');
    this.issue(spec.CMD_CFGI_STE_RANGE.encode({ Range: spec.CFGI_ALL_RANGE }));
    if (IDR0.of(this.read(IDR0), 'Hyp') === 1) this.issue(spec.CMD_TLBI_EL2_ALL.encode());
    this.issue(spec.CMD_TLBI_NSNH_ALL.encode());
    // A device may say that it has translated its address: believed only where EATS says so (ATSCHK).
    this.control('CMDQEN', 'SMMUEN', ...(this.ats ? ['ATSCHK'] : []));
  }

  write64(register, value) {
    this.kernel.write64(`my:${register.name}`, this.at(register), value);
  }

  /** Stores the 64-bit words `from` to `to` of a record. */
  store(pa, words, from = 0, to = STE.bytes / 8) {
    for (const [i, qword] of spec.toQwords(words).entries())
      if (i >= from && i < to) this.kernel.bus.store64(pa + BigInt(8 * i), qword);
  }

  /**
   * Changes the STEs of some streams. Hardware reads the words of an STE in any order and may keep what it read, so only
   * word 0, which has V and Config, changes while it counts: to "abort", and from there to the new one. The other words
   * change in between, while nobody looks at them. `gone`: the VMID that the streams leave, if any.
   */
  install(sids, ste, gone) {
    const rewrite = (words, from, to) => {
      for (const sid of sids) this.store(this.steAt(sid), words, from, to);
      this.kernel.dmaWmb('my:ste');
      this.issue(...sids.map((sid) => spec.CMD_CFGI_STE.encode({ StreamID: sid, Leaf: 1 })));
    };
    rewrite(ABORT, 0, 1);
    if (gone !== undefined) this.flush(gone);
    rewrite(ste, 1);
    rewrite(ste, 0, 1);
  }

  /** Queues commands with a CMD_SYNC after them and waits until all are done. At most as many as the queue holds. */
  issue(...commands) {
    const all = [...commands, spec.CMD_SYNC.encode()];
    for (const words of all) {
      const slot = this.cmdq + BigInt((this.prod % this.entries) * spec.COMMAND_BYTES);
      for (const [i, qword] of spec.toQwords(words).entries()) this.kernel.bus.store64(slot + BigInt(8 * i), qword);
      this.prod = (this.prod + 1) % (2 * this.entries);
    }
    this.write(CMDQ_PROD, this.prod);
    const mask = 2 * this.entries - 1;
    const done = () => (this.read(CMDQ_CONS) & mask) === this.prod;
    if (!this.kernel.poll('my:cmdq', done)) fail('ETIMEDOUT', `the queue of ${this.name} does not move`);
  }

  steAt(sid) {
    return this.strtab + BigInt(sid * STE.bytes);
  }

  /** Nothing of a VMID is cached afterwards, if no STE that a SMMU could fetch names it any more. */
  flush(vmid) {
    this.issue(spec.CMD_TLBI_S12_VMALL.encode({ VMID: vmid }));
  }
}

const ABORT = STE.encode({ V: 1, Config: 'ABORT' });

const asWords = (qword) => spec.fromQwords([qword]);

/** A stage 2 with tables of its own. Tables are only given back with the domain. */
class Stage2 {
  type = 'paging';
  pgsizeBitmap = PAGE;
  aperture = { start: 0n, end: (1n << BigInt(IPA_BITS)) - 1n };
  iopfHandler = null;

  constructor(smmu, ops, owner, nestParent) {
    Object.assign(this, { smmu, ops, owner, nestParent, pages: [] });
    this.vmid = smmu.vmids.alloc();
    smmu.kernel.announce({ what: 'vmid', act: 'alloc', where: smmu.name, id: BigInt(this.vmid), owner: this.label });
    try {
      this.root = this.newTable();
    } catch (error) {
      this.giveVmid();
      throw error;
    }
  }

  get label() {
    return `my-s2:${this.vmid}`;
  }

  newTable() {
    const pa = this.smmu.kernel.allocPages('my:s2-table', Number(PAGE));
    this.pages.push(pa);
    return pa;
  }

  giveVmid() {
    const { smmu, vmid } = this;
    smmu.kernel.announce({ what: 'vmid', act: 'free', where: smmu.name, id: BigInt(vmid), owner: this.label });
    smmu.vmids.free(vmid);
  }

  /** Where the last-level descriptor of an address is; `make`: makes the tables above it. */
  leafAt(iova, make) {
    const { bus } = this.smmu.kernel;
    let table = this.root;
    for (let level = FIRST_LEVEL; ; level++) {
      const { shift } = spec.levelGeometry('4k', level);
      const at = table + ((iova >> BigInt(shift)) & 511n) * 8n;
      if (level === 3) return at;
      const entry = bus.load64(at);
      if (TABLE.get(asWords(entry), 'Valid') === 1n) table = TABLE.address(asWords(entry), 'NextLevelTableAddress');
      else if (!make) return undefined;
      else {
        table = this.newTable();
        this.smmu.kernel.dmaWmb('my:table');
        bus.store64(at, spec.toQwords(TABLE.encode({ Valid: 1, Type: 1, NextLevelTableAddress: table >> 12n }))[0]);
      }
    }
  }

  map(iova, pa, count, prot) {
    const { bus } = this.smmu.kernel;
    const S2AP = (prot.read ? 1 : 0) | (prot.write ? 2 : 0);
    for (let i = 0n; i < BigInt(count); i++) {
      const fields = { Valid: 1, Type: 1, AF: 1, S2AP, SH: 3, MemAttr: NORMAL, OutputAddress: (pa + i * PAGE) >> 12n };
      bus.store64(this.leafAt(iova + i * PAGE, true), spec.toQwords(LEAF.encode(fields))[0]);
    }
    this.smmu.kernel.dmaWmb('my:map');
    return BigInt(count) * PAGE;
  }

  unmap(iova, count) {
    for (let i = 0n; i < BigInt(count); i++) {
      const at = this.leafAt(iova + i * PAGE, false);
      if (at !== undefined) this.smmu.kernel.bus.store64(at, 0n);
    }
    return BigInt(count) * PAGE;
  }

  translate(iova) {
    const at = this.leafAt(iova, false);
    const leaf = at === undefined ? undefined : asWords(this.smmu.kernel.bus.load64(at));
    if (leaf === undefined || LEAF.get(leaf, 'Valid') === 0n) return undefined;
    return LEAF.address(leaf, 'OutputAddress') + (iova % PAGE);
  }

  free() {
    this.smmu.kernel.withLock(this.smmu.lock, () => this.smmu.flush(this.vmid));
    for (const pa of this.pages.reverse()) this.smmu.kernel.freePages('my:s2-table', pa);
    this.giveVmid();
  }

  /** The fields of an STE for this stage 2. */
  get ste() {
    return {
      V: 1,
      Config: 'S2_TRANS',
      S2VMID: this.vmid,
      S2T0SZ: 64 - IPA_BITS,
      S2SL0: 1,
      S2IR0: 'WB_RA_WA',
      S2OR0: 'WB_RA_WA',
      S2SH0: 'ISH',
      S2TG: '4KB',
      S2PS: 'BITS_44',
      S2AA64: 'AARCH64',
      S2R: 1,
      S2TTB: this.root >> 4n,
    };
  }
}

/** What a VM may say in its STE: which CD, and how it is fetched. */
const GUEST_FIELDS = ['S1Fmt', 'S1ContextPtr', 'S1CDMax', 'S1DSS', 'S1CIR', 'S1COR', 'S1CSH', 'S1STALLD'];
const GUEST_MASK = STE.mask(['V', 'Config', ...GUEST_FIELDS]);
const VSTE_BYTES = STE.bytes / 4;

/** The STE of a VM's stream over its stage 2. @throws KernelError EIO for what a VM may not say */
function nestedSte(parent, data) {
  const bytes = data.copy(HWPT_DATA_TYPE.ARM_SMMUV3, VSTE_BYTES, VSTE_BYTES);
  const given = STE.zero();
  new Uint8Array(given.buffer).set(bytes);
  if (STE.get(given, 'V') === 0n) return ABORT;
  if (given.some((word, i) => (word & ~GUEST_MASK[i]) !== 0)) fail('EIO', 'the vSTE sets what a VM may not set');
  const { ABORT: abort, BYPASS: bypass, S1_TRANS: stage1 } = STE.fields.Config.values;
  const config = STE.num(given, 'Config');
  if (config === abort) return ABORT;
  if (config === bypass) return STE.encode(parent.ste);
  if (config !== stage1) fail('EIO', `vSTE.Config ${config}`);
  const stage1Fields = Object.fromEntries(GUEST_FIELDS.map((name) => [name, STE.get(given, name)]));
  // Nobody would ever answer a stall.
  const S1STALLD = parent.smmu.stalls ? 1 : 0;
  return STE.encode({ ...parent.ste, ...stage1Fields, S1STALLD, Config: 'NESTED' });
}

/** A VM's command as the host issues it. @throws KernelError EIO */
function hostCommand(words, vmid, sidOf) {
  const opcode = spec.opcodeOf(words);
  const { CMD_TLBI_NSNH_ALL, CMD_TLBI_NH_ALL, CMD_TLBI_NH_ASID, CMD_TLBI_NH_VA, CMD_TLBI_NH_VAA } = spec;
  const { CMD_CFGI_CD, CMD_CFGI_CD_ALL } = spec;
  if (opcode === CMD_TLBI_NSNH_ALL.opcode) return CMD_TLBI_NH_ALL.encode({ VMID: vmid });
  const tlbi = [CMD_TLBI_NH_ALL, CMD_TLBI_NH_ASID, CMD_TLBI_NH_VA, CMD_TLBI_NH_VAA].find((c) => c.opcode === opcode);
  // No CMD_ATC_INV: ATS is off, a device has nothing to forget. One that does not answer would stop the queue for all.
  const bySid = [CMD_CFGI_CD, CMD_CFGI_CD_ALL].find((c) => c.opcode === opcode);
  if (tlbi !== undefined) tlbi.set(words, 'VMID', vmid);
  else if (bySid !== undefined) bySid.set(words, 'StreamID', sidOf(bySid.num(words, 'StreamID')));
  else fail('EIO', `a VM may not issue opcode 0x${opcode.toString(16)}`);
  return words;
}

/** Makes the driver. */
export default function myDriver(kernel, firmware) {
  const smmus = new Map(firmware.smmus.map((node) => [node.name, new Smmu(kernel, node, firmware.devices)]));
  const smmuOf = (dev) => smmus.get(dev.iommu.name) ?? fail('ENODEV', `there is no ${dev.iommu.name}`);

  /** Moves all streams of a device out of the domain `old`. */
  const install = (dev, ste, old) => {
    const smmu = smmuOf(dev);
    const gone = old.vmid ?? old.parent?.vmid;
    kernel.withLock(smmu.lock, () => smmu.install(dev.node.streamIds, ste, gone));
  };

  const fixed = (type, ste) => ({
    type,
    owner: null,
    pgsizeBitmap: 0n,
    aperture: { start: 0n, end: 0n },
    iopfHandler: null,
    ops: { attachDev: (_domain, dev, old) => install(dev, ste, old), free: () => {} },
  });

  const checkSmmu = (dev, stage2) => {
    if (stage2.smmu !== smmuOf(dev)) fail('EINVAL', `the stage 2 belongs to ${stage2.smmu.name}`);
  };

  const flush = (domain) => kernel.withLock(domain.smmu.lock, () => domain.smmu.flush(domain.vmid));
  const pagingOps = {
    attachDev: (domain, dev, old) => {
      checkSmmu(dev, domain);
      install(dev, STE.encode(domain.ste), old);
    },
    mapPages: (domain, iova, pa, _pgsize, count, prot) => domain.map(iova, pa, count, prot),
    unmapPages: (domain, iova, _pgsize, count, gather) => {
      const bytes = domain.unmap(iova, count);
      // Without this the core sees nothing to synchronise, and never calls iotlbSync.
      iotlbGatherAddRange(gather, iova, bytes);
      return bytes;
    },
    // Simpler than by address, and stage 1 entries over what was unmapped go with it.
    iotlbSync: flush,
    flushIotlbAll: flush,
    iovaToPhys: (domain, iova) => domain.translate(iova),
    enforceCacheCoherency: () => true,
    free: (domain) => domain.free(),
  };

  const nestedOps = {
    attachDev: (domain, dev, old) => {
      checkSmmu(dev, domain.parent);
      install(dev, domain.ste, old);
    },
    free: () => {},
  };

  const viommuOps = {
    vdeviceInit: (vdev) => {
      // One vSID, one stream: what a VM invalidates must reach all of its device.
      if (vdev.dev.node.streamIds.length !== 1) fail('EOPNOTSUPP', 'a device of several streams');
    },
    allocDomainNested: (viommu, _flags, data) => {
      const { parent } = viommu;
      const base = { type: 'nested', owner: null, pgsizeBitmap: 0n, aperture: parent.aperture, iopfHandler: null };
      return { ...base, ops: nestedOps, parent, ste: nestedSte(parent, data) };
    },
    cacheInvalidate: (viommu, array) => {
      const { smmu, vmid } = viommu.parent;
      const entries = array.copyAll(HWPT_INVALIDATE_DATA_TYPE.ARM_SMMUV3, spec.COMMAND_BYTES);
      array.entryNum = 0;
      const sidOf = (vsid) => {
        const dev = viommu.callbacks.findDev(viommu, BigInt(vsid));
        return dev === undefined ? fail('EIO', `no vDEVICE has vSID ${vsid}`) : dev.node.streamIds[0];
      };
      for (const bytes of entries) {
        const words = new Uint32Array(bytes.slice().buffer);
        kernel.withLock(smmu.lock, () => smmu.issue(hostCommand(words, vmid, sidOf)));
        array.entryNum++;
      }
    },
  };

  const ops = {
    name: 'my-driver',
    defaultDomainType: 'dma',
    identityDomain: fixed('identity', STE.encode({ V: 1, Config: 'BYPASS' })),
    blockedDomain: fixed('blocked', ABORT),
    capable: (_dev, cap) => ['cache-coherency', 'enforce-cache-coherency', 'noexec', 'ats-not-supported'].includes(cap),
    domainAllocPagingFlags: (dev, flags) => {
      if (flags.dirtyTracking || flags.pasid) fail('EOPNOTSUPP', 'no dirty tracking, no PASIDs');
      return new Stage2(smmuOf(dev), pagingOps, ops, flags.nestParent === true);
    },
    probeDevice: (dev) => {
      dev.maxPasids = 0;
      smmuOf(dev);
    },
    releaseDevice: (dev) => install(dev, ABORT, ops.blockedDomain),
    getResvRegions: () => [],
    getViommuSize: (dev, type) =>
      type === VIOMMU_TYPE.ARM_SMMUV3 && smmuOf(dev).nests && dev.node.canWbs ? VIOMMU_CORE_SIZE : 0,
    viommuInit: (viommu, parent) => {
      if (!(parent instanceof Stage2) || parent.smmu.name !== viommu.iommuDev.name)
        fail('EINVAL', 'the parent is no stage 2 of this SMMU');
      viommu.ops = viommuOps;
    },
  };
  return ops;
}
