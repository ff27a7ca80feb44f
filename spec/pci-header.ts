/**
 * The parts of PCI configuration space that this project uses: the common header, its two types, and the window
 * registers of a bridge (PCI Local Bus 3.0, 6.1; PCI-to-PCI Bridge 1.2, 3.2). Offsets are bytes.
 */
import { layout } from './layout.ts';

const PCI = 'PCI 3.0, 6.1';

/** The header of a function (type 0), first 24 bytes. */
export const PCI_TYPE0 = layout(
  'PCI_TYPE0',
  { bytes: 24, section: PCI, text: 'PCI configuration header of a function, up to BAR1' },
  {
    VendorID: { bits: [15, 0] },
    DeviceID: { bits: [31, 16] },
    IoSpace: { bits: [32, 32], text: 'COMMAND: answers I/O accesses' },
    MemorySpace: { bits: [33, 33], text: 'COMMAND: its memory BARs answer' },
    BusMaster: { bits: [34, 34], text: 'COMMAND: may start transactions' },
    RES0_39_35: { bits: [39, 35], reserved: 'RES0' },
    Serr: { bits: [40, 40], text: 'COMMAND: SERR enable' },
    RES0_41: { bits: [41, 41], reserved: 'RES0' },
    InterruptDisable: { bits: [42, 42], text: 'COMMAND: INTx off' },
    RES0_47_43: { bits: [47, 43], reserved: 'RES0' },
    Status: { bits: [63, 48] },
    RevisionID: { bits: [71, 64] },
    ClassCode: { bits: [95, 72] },
    CacheLineSize: { bits: [103, 96] },
    LatencyTimer: { bits: [111, 104] },
    HeaderType: { bits: [119, 112], values: { FUNCTION: 0, BRIDGE: 1 } },
    BIST: { bits: [127, 120] },
    Bar0Type: { bits: [131, 128], text: '0: 32-bit memory, not prefetchable' },
    Bar0Address: { bits: [159, 132], address: 4 },
    Bar1: { bits: [191, 160] },
  },
);

/** The header of a PCI-to-PCI bridge (type 1), from byte 0x18 to 0x23. Bit 0 here is bit 0 of byte 0x18. */
export const PCI_BRIDGE_WINDOWS = layout(
  'PCI_BRIDGE_WINDOWS',
  { bytes: 12, section: 'PCI-to-PCI Bridge 1.2, 3.2', text: 'bus numbers and windows of a bridge, from byte 0x18' },
  {
    PrimaryBus: { bits: [7, 0] },
    SecondaryBus: { bits: [15, 8] },
    SubordinateBus: { bits: [23, 16] },
    SecondaryLatency: { bits: [31, 24] },
    IoWindow: { bits: [47, 32] },
    SecondaryStatus: { bits: [63, 48] },
    RES0_67_64: { bits: [67, 64], reserved: 'RES0' },
    MemoryBase: { bits: [79, 68], text: 'address bits 31:20 of the window', address: 20 },
    RES0_83_80: { bits: [83, 80], reserved: 'RES0' },
    MemoryLimit: { bits: [95, 84], text: 'address bits 31:20 of the last MiB of the window', address: 20 },
  },
);

/** Byte offset of {@link PCI_BRIDGE_WINDOWS} in configuration space. */
export const PCI_BRIDGE_WINDOWS_OFFSET = 0x18;
/** Bytes of one function's configuration space (PCI Express). */
export const PCI_CONFIG_BYTES = 4096;

/** An ECAM address: offset inside the window (PCI Express 4.0, 7.2.2). */
export const PCI_ECAM = layout(
  'PCI_ECAM',
  { bytes: 4, section: 'PCI Express 4.0, 7.2.2', text: 'offset inside an ECAM window' },
  {
    Offset: { bits: [11, 0] },
    Function: { bits: [14, 12] },
    Device: { bits: [19, 15] },
    Bus: { bits: [27, 20] },
    RES0_31_28: { bits: [31, 28], reserved: 'RES0' },
  },
);
