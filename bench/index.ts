/** All benches, each beside its floor or bar: `npm run bench`. */
await import('./translate.bench.ts');
await import('./driver.bench.ts');
await import('./iommufd.bench.ts');
await import('./lab.bench.ts');
