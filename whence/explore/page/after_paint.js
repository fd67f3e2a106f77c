// What can wait until that is on the screen which a reader waits for.

/**
 * A function that does something once what is drawn now has been painted; called again before, it
 * does so only once.
 * @param {() => void} action
 * @returns {() => void}
 */
export function afterPaint(action) {
  let isWaiting = false;
  return () => {
    if (isWaiting) return;
    isWaiting = true;
    // A frame's callbacks run before it is painted, and what they set a timer for after it.
    requestAnimationFrame(() => setTimeout(() => {
      isWaiting = false;
      action();
    }));
  };
}
