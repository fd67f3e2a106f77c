// One question at a time, of those that come meanwhile the newest alone.

/**
 * @param {() => Promise<void>} ask
 * @param {(error: unknown) => void} report what went wrong, or null where nothing did
 * @returns {() => Promise<void>}
 */
export function newest(ask, report) {
  let isBusy = false;
  let isWanted = false;
  return async () => {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    while (isWanted) {
      isWanted = false;
      try {
        await ask();
        report(null);
      } catch (error) {
        report(error);
      }
    }
    isBusy = false;
  };
}
