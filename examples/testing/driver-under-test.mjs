/**
 * A driver of one's own under test, without the command line: the example driver with a mistake, the case that shows it,
 * and its story. Run it: node examples/testing/driver-under-test.mjs
 */
import { dmaContained, runCase, runProperty, storyLines } from 'smmulab/testing';
import myDriver from '../my-driver.mjs';

/** Forgets to invalidate what it has unmapped. */
function forgetful(kernel, firmware) {
  const ops = myDriver(kernel, firmware);
  const { domainAllocPagingFlags } = ops;
  ops.domainAllocPagingFlags = (dev, flags, data) => {
    const domain = domainAllocPagingFlags(dev, flags, data);
    domain.ops = { ...domain.ops, iotlbSync: () => {}, flushIotlbAll: () => {} };
    return domain;
  };
  return ops;
}

for (const driver of [myDriver, forgetful]) {
  const options = { extras: { driver }, withoutPolicy: true };
  const report = runProperty(dmaContained, { ...options, seed: 1, runs: 200, fixed: { policy: 'foreign' } });
  console.log(`${driver.name}: ${report.ok ? 'holds' : 'broken'} after ${report.runs} runs`);
  for (const found of report.findings) {
    console.log(found.finding.message);
    for (const line of storyLines(runCase(dmaContained, found.case, options))) console.log(line);
  }
}
