/** Steps of iommufd that are handed in, so that a test, or a bug of the zoo, may replace one. */
import type { IommufdObject } from './object.ts';

/** See the module comment. */
export interface IommufdParts {
  /** What a mapping of device memory in a process keeps alive: the object that offers it. */
  readonly mmapHold: {
    get(owner: IommufdObject): void;
    put(owner: IommufdObject): void;
  };
}

/** The parts as shipped. */
export const iommufdParts = (): IommufdParts => ({
  mmapHold: {
    get: (owner) => {
      owner.users++;
    },
    put: (owner) => {
      owner.users--;
    },
  },
});
