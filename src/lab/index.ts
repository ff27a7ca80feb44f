/** The laboratory around the layers: scenarios, the qtest machine, a VMM's memory, replays of recorded truth. */

export { GuestCmdqv, type GuestQueueSetup, type GuestRam, type GuestResult } from '../testing/guest-cmdqv.ts';
export { type ConformanceOutput, replayDirectory, runIommufdConformance } from './conformance/iommufd.ts';
export { runVector, type Vector, type VectorResult, vectorSchema } from './conformance/vectors.ts';
export { readVectors, runVectorsFile } from './conformance/vectors-file.ts';
export { QtestSession, type QtestTarget } from './qtest/protocol.ts';
export { RemoteBus, type RemoteBusOptions, VIRT_FIRMWARE } from './qtest/remote-bus.ts';
export { parseQtestAddress, type QtestAddress, type QtestServer, serveQtest } from './qtest/server.ts';
export { type QtestAnswer, type QtestLink, QtestLinkError, QtestSocket } from './qtest/socket.ts';
export { placeTestdev, runTestdev, type TestdevDma, type TestdevResult } from './qtest/testdev.ts';
export { TEST_FUNCTIONS, VIRT, VirtTarget } from './qtest/virt-target.ts';
export * from './scenario.ts';
export { runScenario, type ScenarioResult, type StepOutcome } from './scenario-run.ts';
export { AddressSpace, PageList, type UserArea } from './vmm/address-space.ts';
