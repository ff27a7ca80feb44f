/** Configuration invalidation (IHI 0070 4.3). A StreamID or SubstreamID out of range has no effect (4.1.7). */
import {
  CFGI_ALL_RANGE,
  CMD_CFGI_CD,
  CMD_CFGI_STE,
  CMD_CFGI_STE_RANGE,
  CMD_CFGI_VMS_PIDM,
} from '../../../spec/commands.ts';
import type { Execute } from './context.ts';

export const cfgiSte: Execute = (words, { caches, caps }) => {
  const sid = CMD_CFGI_STE.num(words, 'StreamID');
  if (sid < 2 ** caps.SIDSIZE) caches.ste(sid, CMD_CFGI_STE.num(words, 'Leaf') === 1);
  return 0;
};

/** CMD_CFGI_STE_RANGE; with the largest Range it is CMD_CFGI_ALL. Low Range + 1 bits of the StreamID do not count. */
export const cfgiSteRange: Execute = (words, { caches }) => {
  const range = CMD_CFGI_STE_RANGE.num(words, 'Range');
  if (range === CFGI_ALL_RANGE) caches.allConfig();
  else caches.steRange(CMD_CFGI_STE_RANGE.num(words, 'StreamID'), range);
  return 0;
};

export const cfgiCd: Execute = (words, { caches, caps }) => {
  const sid = CMD_CFGI_CD.num(words, 'StreamID');
  const ssid = CMD_CFGI_CD.num(words, 'SubstreamID');
  if (sid < 2 ** caps.SIDSIZE && ssid < 2 ** caps.SSIDSIZE) caches.cd(sid, ssid, CMD_CFGI_CD.num(words, 'Leaf') === 1);
  return 0;
};

export const cfgiCdAll: Execute = (words, { caches, caps }) => {
  const sid = CMD_CFGI_CD.num(words, 'StreamID');
  if (sid < 2 ** caps.SIDSIZE) caches.allCds(sid);
  return 0;
};

export const cfgiVmsPidm: Execute = (words, { caches }) => {
  caches.vms(CMD_CFGI_VMS_PIDM.num(words, 'VMID'));
  return 0;
};
