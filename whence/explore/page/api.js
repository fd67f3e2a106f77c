// Questions to the server that the page came from.

/**
 * @param {string} name
 * @param {Record<string, string | number>} asked
 * @returns {Promise<Response>}
 */
async function get(name, asked) {
  const query = new URLSearchParams(Object.entries(asked).map(([key, value]) => [key, String(value)]));
  return checked(await fetch(`api/${name}?${query}`));
}

/**
 * @param {Response} response
 * @returns {Promise<Response>}
 */
async function checked(response) {
  if (response.ok) return response;
  const { error } = await response.json();
  throw new Error(error);
}

/** @param {Response} response */
async function numbers(response) {
  return new Float64Array(await response.arrayBuffer());
}

/** What is explored: names, ranges, what training came to. */
export async function run() {
  return (await get("run", {})).json();
}

/**
 * Training points, column by column.
 * @param {number} n
 */
export async function points(n) {
  const values = await numbers(await get("points", {}));
  const column = (/** @type {number} */ k) => values.subarray(k * n, (k + 1) * n);
  return { columns: [column(0), column(1)], term: column(2), index: column(3), loss: column(4), entered: column(5) };
}

/** @param {string} of */
export async function field(of) {
  return numbers(await get("field", { of }));
}

/**
 * @param {string} of
 * @param {number[]} at
 */
export async function influenceAt(of, at) {
  return numbers(await get("influence", { of, at: at.join(",") }));
}

/**
 * @param {string} term
 * @param {number} index
 * @param {string} of
 */
export async function influenceOf(term, index, of) {
  return numbers(await get("point", { term, index, of }));
}

/**
 * @param {string} of
 * @param {number[]} at
 * @returns {Promise<{value: number, quality: string}>}
 */
export async function answer(of, at) {
  return (await get("answer", { of, at: at.join(",") })).json();
}

/**
 * @param {Record<string, number[]>} members
 * @param {string} of
 * @param {number[]} at
 * @returns {Promise<{size: number, share: number, first_order: number, exact: number}>}
 */
export async function region(members, of, at) {
  const body = JSON.stringify({ points: members, of, at });
  return (await checked(await fetch("api/region", { method: "POST", body }))).json();
}
