/** For monitors that look at hardware during one operation. */
import type { Observer, Watch } from '../../hw/observer.ts';

/** Names of a VM's VCMDQs in announcements, with the numbers of VINTF and LVCMDQ. VINTF 0 is the host's. */
export const GUEST_QUEUE = /^vcmdq([1-9]\d*)\.(\d+)$/;

/** Adds an observer behind the one that is there. Returns how to take it off; a later one that is still there stays. */
export function watching(watch: Watch, observer: Observer): () => void {
  const before = watch.observer;
  const both: Observer = (act) => {
    before?.(act);
    observer(act);
  };
  watch.observer = both;
  return () => {
    if (watch.observer === both) watch.observer = before;
  };
}
