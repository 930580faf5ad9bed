/** Hungarian matching as DETR has it: costs, and the assignment whose costs have the least sum. */

/** @typedef {[number, number, number, number]} Box centre x, centre y, width, height, in [0, 1] */
/** @typedef {{label: number, l1: number, giou: number}} Weights */

/**
 * cost = label · (-p(class)) + l1 · |b - b'|₁ + giou · (-GIoU(b, b')) of each object and prediction (Carion et al. 2020).
 * @param {{box: Box, label: number}[]} objects
 * @param {{box: Box, chances: number[]}[]} predictions
 * @param {Weights} weights
 * @returns {number[][]} (objects, predictions)
 */
export function costMatrix(objects, predictions, weights) {
  return objects.map((object) =>
    predictions.map(({ box, chances }) => {
      const distance = box.reduce((sum, value, i) => sum + Math.abs(value - object.box[i]), 0);
      return weights.l1 * distance - weights.label * chances[object.label] - weights.giou * generalizedIou(box, object.box);
    }),
  );
}

/** IoU - |C \ (A ∪ B)| / |C|, with C the smallest box around both (Rezatofighi et al. 2019).
 * @param {Box} a
 * @param {Box} b */
export function generalizedIou(a, b) {
  const sides = [0, 1].map((axis) => {
    const [startA, endA] = [a[axis] - a[axis + 2] / 2, a[axis] + a[axis + 2] / 2];
    const [startB, endB] = [b[axis] - b[axis + 2] / 2, b[axis] + b[axis + 2] / 2];
    return {
      common: Math.max(Math.min(endA, endB) - Math.max(startA, startB), 0),
      hull: Math.max(endA, endB) - Math.min(startA, startB),
    };
  });
  const intersection = sides[0].common * sides[1].common;
  const union = a[2] * a[3] + b[2] * b[3] - intersection;
  const hull = sides[0].hull * sides[1].hull;
  return intersection / union - (hull - union) / hull;
}

/**
 * The column of each row such that the sum is least and no column is taken twice, in O(rows² · columns): rows are added
 * one by one, each by the shortest path of exchanges (Kuhn 1955, Munkres 1957, in the form of Jonker and Volgenant 1987).
 * @param {number[][]} cost no more rows than columns
 * @returns {number[]}
 */
export function assignment(cost) {
  const columns = cost[0]?.length ?? 0;
  const [ofRow, ofColumn] = [new Array(cost.length).fill(0), new Array(columns).fill(0)]; // what rows and columns pay
  const rowAt = new Array(columns).fill(-1);
  for (let added = 0; added < cost.length; added++) {
    const distance = new Array(columns).fill(Infinity);
    const before = new Array(columns).fill(-1);
    const isDone = new Array(columns).fill(false);
    let row = added;
    let column = -1;
    do {
      if (column >= 0) isDone[column] = true;
      const path = column >= 0 ? distance[column] : 0;
      let next = -1;
      for (let j = 0; j < columns; j++) {
        if (isDone[j]) continue;
        const through = path + cost[row][j] - ofRow[row] - ofColumn[j];
        if (through < distance[j]) [distance[j], before[j]] = [through, column];
        if (next < 0 || distance[j] < distance[next]) next = j;
      }
      column = next;
      row = rowAt[column];
    } while (row >= 0);
    ofRow[added] += distance[column];
    for (let j = 0; j < columns; j++) {
      if (!isDone[j]) continue;
      ofRow[rowAt[j]] += distance[column] - distance[j];
      ofColumn[j] -= distance[column] - distance[j];
    }
    for (let j = column; j >= 0; j = before[j]) rowAt[j] = before[j] >= 0 ? rowAt[before[j]] : added;
  }
  return cost.map((_, i) => rowAt.indexOf(i));
}

/** The cheapest pair first, then the cheapest of what is left: not the least sum.
 * @param {number[][]} cost
 * @returns {number[]} the column of each row */
export function greedy(cost) {
  const found = new Array(cost.length).fill(-1);
  const pairs = cost.flatMap((line, row) => line.map((value, column) => ({ value, row, column })));
  for (const { row, column } of pairs.sort((a, b) => a.value - b.value)) {
    if (found[row] < 0 && !found.includes(column)) found[row] = column;
  }
  return found;
}

/** @param {number[][]} cost
 * @param {number[]} columns */
export function total(cost, columns) {
  return columns.reduce((sum, column, row) => sum + cost[row][column], 0);
}
