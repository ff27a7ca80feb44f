/**
 * Inspection as a library: what the command line prints, as typed results. Records: `decode`, `encodeRecord`,
 * `diffEntries`. Images: `openSource` and `readManifest`, then `dump`, `inspect`, `translateOnImage`, `mapRange`,
 * `diffDumps`. Logs: `LogExplainer`. Pages for a browser: `dumpPage`, `translationPage`, `diffPage`.
 */
export { type DecodeOptions, decode, READERS } from './decode.ts';
export { type DiffStep, diffEntries, type EntryDiff, type FieldChange } from './diff.ts';
export {
  type CdChange,
  type DumpDiff,
  diffDumps,
  type NamedDump,
  type StreamChange,
  type StreamNote,
} from './diff-dumps.ts';
export {
  capsFromRegisters,
  type Dump,
  type DumpCd,
  type DumpOptions,
  type DumpProblem,
  type DumpStream,
  dump,
} from './dump.ts';
export { ENCODED_KINDS, type EncodedKind, encodeRecord, type FieldValue } from './encode.ts';
export { InputError } from './error.ts';
export { type EventSummary, type Finding, LogExplainer } from './explain/explain.ts';
export { diffPage } from './html/diff-page.ts';
export { dumpPage } from './html/dump-page.ts';
export { translationPage } from './html/translation-page.ts';
export { type Inspection, type InspectOptions, inspect, type TableDump } from './inspect.ts';
export { type Manifest, type ManifestImage, type ManifestPhase, memoryOf, readManifest } from './manifest.ts';
export { type ByteSource, bufferSource, ImageMemory, type Segment } from './memory.ts';
export { addressOf, ImageModel, type ModelOptions } from './model.ts';
export { type QueueDump, type QueueEntry, queuesOf } from './queues.ts';
export { type MappedRange, mapRange, type RangeRequest, type RangeResult } from './ranges.ts';
export { type DecodedField, type DecodedProblem, type DecodedRecord, KINDS, type RecordKind } from './record.ts';
export { registersOfText } from './registers.ts';
export { openSource, type Snapshot, type Source, snapshotOf } from './source.ts';
export { type Registers, type StreamTable, streamTableOf } from './stream-table.ts';
export { type AsidUse, type TagUse, tagsOf, type VmidUse } from './tags.ts';
export {
  type AccessRequest,
  type TranslationOutcome,
  type TranslationResult,
  type TranslationStep,
  translateOnImage,
} from './translate.ts';
export { hexWords, parseWords, type WordsOptions } from './words.ts';
