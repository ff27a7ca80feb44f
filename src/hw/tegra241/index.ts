/** Tegra241 CMDQV hardware. */
export { Cmdqv, type CmdqvPorts } from './cmdqv.ts';
export {
  type CmdqvConfig,
  type CmdqvCounts,
  type CmdqvOptions,
  type CmdqvParam,
  cmdqvCounts,
  DEFAULT_CMDQV_OPTIONS,
  HOST_PARAM,
  SMALL_PARAM,
} from './config.ts';
export { Vcmdq } from './vcmdq.ts';
export { Vintf } from './vintf.ts';
