// Local window attention, forward and backward, for one CPU (Ramachandran et al. 2019, eq. 3).
//
//   logit_ij = (q_i·k_j + q_i·r_{j-i}) · scale + b_{j-i},  p = softmax_j,  y_i = Σ_j p_ij v_j,  j in the window of i
//
// A vector holds one number of L neighbouring columns. A tile is up to ROWS query rows of L columns: each key that is
// loaded, shifted by each column offset, serves all query rows of the tile, so that the processor multiplies more than
// it loads. For that, rows are first packed channel by channel: plane c, row y, column x. Each plane is a ring that holds the
// rows in use and no more, so that they stay in the cache. What is beyond the border, or masked, is zero there. Dilation
// needs no code of its own: pixels that lie a multiple of the dilation apart are a grid of their own. The backward pass
// recomputes p; the gradients of keys and values gather from rings of p and of the gradients of the logits. Sums over
// strips of rows go in one order, whatever the threads do.
//
// A pair does not exist where the key lies beyond the border, is masked, or has a bias of -inf; such a pair counts
// nowhere, whatever its key holds. For pairs that exist NaN and infinity count as in softmax. The sums run over whole
// vectors, in which pairs that do not exist have the weight -0; a NaN on the other side would leak out of them. So a
// strip of rows whose results are not all finite is computed again, `careful`: then -0 means "leave it out".
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__  // the parts of `scratch` are then kept apart
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size)
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif

namespace {

#if defined(__AVX512F__)
constexpr int L = 16, ROWS = 4, SHIFTS = 7;  // 28 sums, 4 queries: 32 registers
#elif defined(__AVX__)
constexpr int L = 8, ROWS = 3, SHIFTS = 4;  // 12 sums, 3 queries, a key: 16 registers
#else
constexpr int L = 4, ROWS = 3, SHIFTS = 4;
#endif
constexpr int CHANS = 4;  // of a weighted sum at a time

typedef float vec __attribute__((vector_size(4 * L)));
typedef float vec_u __attribute__((vector_size(4 * L), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * L)));
typedef uint32_t uvec __attribute__((vector_size(4 * L)));
typedef uint16_t hvec __attribute__((vector_size(2 * L)));

constexpr float NONE = -0.f;  // the weight of a pair that does not exist; all others are +0 or more, or NaN

enum { DONE, NO_MEMORY, INVALID, NOT_FINITE };

inline vec load(const float* p) { return *reinterpret_cast<const vec_u*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec_u*>(p) = x; }
inline vec all(float x) { return x - vec{}; }
inline ivec load(const int32_t* p) {
  ivec x;
  memcpy(&x, p, sizeof x);
  return x;
}
inline vec larger(vec a, vec b) { return a > b ? a : b; }
inline bool any(ivec x) {
  int64_t parts[L / 2], bits = 0;
  memcpy(parts, &x, sizeof x);
  for (int64_t part : parts) bits |= part;
  return bits;
}
inline ivec there(vec weight) { return (ivec)weight != (ivec)all(NONE); }
inline float sum(vec x) {
  float s = 0;
  for (int i = 0; i < L; i++) s += x[i];
  return s;
}

// e^x to 1e-7, for x <= 0 or NaN. Below -87 it is 0.
inline vec exponential(vec x) {
  const vec shifted = x * 1.44269504f + 12582912.f;  // its last bits are a whole number
  vec n = shifted - 12582912.f;
  vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vec y = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r +
           1.6666665459e-1f) * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.f;
  const uvec e = ((uvec)shifted + 127) << 23;
  return x < -87.f ? vec{} : y * (vec)e;
}

// log x to 1e-7, for x >= 1: the mantissa in [√½, √2) by the series of atanh.
inline vec logarithm(vec x) {
  ivec bits = (ivec)x;
  ivec e = (bits - 0x3f3504f3) >> 23;
  bits = bits - (e << 23);
  vec m = (vec)bits, s = (m - 1.f) / (m + 1.f), z = s * s;
  vec y = 2.f * s * (1.f + z * (0.33333333f + z * (0.2f + z * (0.14285714f + z * 0.11111111f))));
  return y + __builtin_convertvector(e, vec) * 0.69314718f;
}

}  // namespace

extern "C" {
// A tensor (batch, heads, height, width, dim) with any strides, in elements.
struct Tokens {
  void* data;
  int64_t batch, head, row, col, dim;
};
struct Case {
  int64_t batch, heads, height, width, dim;
  int64_t window_rows, window_cols, dilation, shifted, row_dim, bf16, threads;
  float scale;
  const uint8_t* mask;     // (batch, height, width), or none
  const float* rel_rows;   // (offsets, row_dim), or none
  const float* rel_cols;   // (offsets, dim - row_dim)
  const float* bias;       // (heads, row offsets, column offsets), or none
};
}

namespace {

// The windows along one axis. All of them are runs of positions, and so are the queries that look at a key. A window
// may be far larger than the axis: nothing but `full` grows with it.
struct Axis {
  int64_t full;  // how far from its query a key may lie if the axis is long enough: where the tables have offset 0
  int length, half, window, reach;  // cut to the axis
  bool shifted;
  Axis(int length, int64_t window, bool shifted)
      : full(shifted ? window - 1 : window / 2),
        length(length),
        half(std::min<int64_t>(window / 2, length)),
        window(std::min<int64_t>(window, length)),
        reach(std::min<int64_t>(full, length - 1)),
        shifted(shifted) {}
  int offsets() const { return 2 * reach + 1; }
  int first(int i) const { return shifted ? std::clamp(i - half, 0, length - window) : std::max(0, i - half); }
  int last(int i) const { return shifted ? first(i) + window - 1 : std::min(length - 1, i + half); }
  int first_query(int j) const { return shifted && j < window ? 0 : std::max(0, j - half); }
  int last_query(int j) const { return shifted && j >= length - window ? length - 1 : std::min(length - 1, j + half); }
};

inline int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Memory that a thread keeps from call to call: fresh pages cost more than what is computed on a small grid.
struct Scratch {
  char* data = nullptr;
  size_t size = 0;
  ~Scratch() { free(data); }
  bool reserve(size_t wanted) {
    ASAN_UNPOISON_MEMORY_REGION(data, size);
    if (wanted <= size) return true;
    free(data);
    data = static_cast<char*>(aligned_alloc(64, round_up(wanted, 64)));
    size = data ? wanted : 0;
    return data;
  }
};
thread_local Scratch scratch;

// Parts of it; with no memory behind, it only counts.
struct Carver {
#ifdef __SANITIZE_ADDRESS__
  static constexpr size_t GAP = 64;
#else
  static constexpr size_t GAP = 0;
#endif
  char* data;
  size_t used = 0;
  template <class T = float> T* take(int64_t count) {
    T* part = data ? reinterpret_cast<T*>(data + used) : nullptr;
    used += round_up(sizeof(T) * count, 64) + GAP;
    if (data) {
      ASAN_POISON_MEMORY_REGION(data + used - GAP, GAP);
    }
    return part;
  }
};

// The layout of packed rows. An odd number of cache lines a plane spreads the planes over the cache.
struct Layout {
  int width, reach, chans, slots;  // slots: rows of a ring
  int64_t pitch, plane;
  Layout(int width, int reach, int dim, int rows)
      : width(width), reach(reach), chans(round_up(dim, CHANS)), slots(round_up(rows, ROWS)), pitch(round_up(round_up(width, L) + 2 * reach, L)) {
    plane = (round_up(slots * pitch + 2 * L, 16) / 16 | 1) * 16;
  }
  int64_t size(int planes) const { return planes * plane + start() + 2 * L; }
  int64_t size() const { return size(chans); }
  // Column 0 of row 0 of plane 0 is aligned.
  int64_t start() const { return round_up(reach, L); }
  // Of a row that comes so many rows after the first.
  int64_t slot(int row) const { return row % slots * pitch; }
};

// What belongs to one batch element, one head and one residue of the dilation.
struct Part {
  int b, h, down, right;  // residues
};

// The first `count` numbers at p, and zeros; no more than those are touched.
inline vec read(const float* p, int count) {
  if (count >= L) return load(p);
  vec x{};
  memcpy(&x, p, 4 * count);
  return x;
}
inline vec read(const uint16_t* p, int count) {
  hvec h{};
  if (count >= L)
    memcpy(&h, p, 2 * L);
  else
    memcpy(&h, p, 2 * count);
  return (vec)(__builtin_convertvector(h, uvec) << 16);
}
inline void write(float* p, vec x, int count) {
  if (count >= L)
    store(p, x);
  else
    memcpy(p, &x, 4 * count);
}
inline void write(uint16_t* p, vec x, int count) {
  const uvec u = (uvec)x;
  const uvec rounded = u + 0x7fff + ((u >> 16) & 1);  // which would carry some NaN over to zero
  hvec h = __builtin_convertvector((x != x ? u | 0x400000 : rounded) >> 16, hvec);
  if (count >= L)
    memcpy(p, &h, 2 * L);
  else
    memcpy(p, &h, 2 * count);
}

// L × L numbers: log2(L) times two halves are interleaved.
#if defined(__AVX512F__)
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
inline void transpose(vec* x) {
  vec y[L];
#pragma GCC unroll 4
  for (int stage = 1; stage < L; stage *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; i++) {
      y[2 * i] = __builtin_shufflevector(x[i], x[i + L / 2], LOW);
      y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + L / 2], HIGH);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) x[i] = y[i];
  }
}

// Rows [from, to) times `scale` into the planes of a ring that begins with row `origin`; pixels that `mask` hides become
// zeros, whatever they hold.
template <class T>
void pack(const Case& c, const Tokens& t, const uint8_t* mask, const Part& part, int from, int to, int origin, float scale,
          const Layout& at, float* out) {
  const int dil = c.dilation;
  const int64_t col = at.width > 1 ? t.col * dil : 0;  // the stride of one column may be anything
  out += at.start();
  for (int y = from; y < to; y++) {
    float* row = out + at.slot(y - origin);
    const int64_t pixel_row = part.down + int64_t(y) * dil;
    const T* x0 = static_cast<const T*>(t.data) + part.b * t.batch + part.h * t.head + pixel_row * t.row + part.right * t.col;
    const uint8_t* real = mask ? mask + (part.b * c.height + pixel_row) * c.width + part.right : nullptr;
    const int64_t filled = at.width / L * L;
    for (int ch = 0; ch < at.chans; ch++) {
      float* p = row + ch * at.plane;
      // Right of this row lies the left of the next.
      for (int64_t x = ch < c.dim ? filled : 0; x < at.pitch; x += L) store(p + x, vec{});
      if (row == out)
        for (int64_t x = L; x <= at.start(); x += L) store(p - x, vec{});
    }
    if (col == 1) {
      for (int ch = 0; ch < c.dim; ch++)
        for (int x = 0; x < at.width; x += L) {
          store(row + ch * at.plane + x, read(x0 + ch * t.dim + x, at.width - x) * scale);
        }
    } else if (t.dim == 1) {
      for (int x = 0; x < at.width; x += L)
        for (int ch = 0; ch < c.dim; ch += L) {
          vec v[L];
          for (int i = 0; i < L; i++)
            v[i] = x + i < at.width ? read(x0 + (x + i) * col + ch, c.dim - ch) * scale : vec{};
          transpose(v);
          for (int i = 0; i < L && ch + i < at.chans; i++) store(row + (ch + i) * at.plane + x, v[i]);
        }
    } else {
      for (int ch = 0; ch < c.dim; ch++)
        for (int x = 0; x < at.width; x++)
          row[ch * at.plane + x] = read(x0 + x * col + ch * t.dim, 1)[0] * scale;
    }
    if (real)
      for (int x = 0; x < at.width; x++)
        if (!real[int64_t(x) * dil])
          for (int ch = 0; ch < c.dim; ch++) row[ch * at.plane + x] = 0;
  }
}

// The way back, from planes that begin with row `from`. Makes `odd` NaN where a number is not finite.
template <class T>
void unpack(const Case& c, const Tokens& t, const Part& part, int from, int to, const Layout& at, const float* in,
            vec& odd) {
  const int dil = c.dilation;
  const int64_t col = at.width > 1 ? t.col * dil : 0;
  vec odds[4] = {odd};  // four, so that none waits for another
  auto seen = [&](const float* p, int i) {
    const vec x = load(p);
    odds[i % 4] += x * 0.f;
    return x;
  };
  in += at.start();
  for (int y = from; y < to; y++) {
    const float* row = in + (y - from) * at.pitch;
    T* x0 = static_cast<T*>(t.data) + part.b * t.batch + part.h * t.head + (part.down + int64_t(y) * dil) * t.row + part.right * t.col;
    if (col == 1) {
      for (int ch = 0; ch < c.dim; ch++)
        for (int x = 0; x < at.width; x += L) write(x0 + ch * t.dim + x, seen(row + ch * at.plane + x, 0), at.width - x);
    } else if (t.dim == 1) {
      for (int x = 0; x < at.width; x += L)
        for (int ch = 0; ch < c.dim; ch += L) {
          vec v[L];
#pragma GCC unroll 16
          for (int i = 0; i < L; i++) v[i] = ch + i < at.chans ? seen(row + (ch + i) * at.plane + x, i) : vec{};
          transpose(v);
          for (int i = 0; i < L && x + i < at.width; i++) write(x0 + (x + i) * col + ch, v[i], c.dim - ch);
        }
    } else {
      for (int ch = 0; ch < c.dim; ch++)
        for (int x = 0; x < at.width; x++) {
          const vec number = all(row[ch * at.plane + x]);
          odds[0] += number * 0.f;
          write(x0 + x * col + ch * t.dim, number, 1);
        }
    }
  }
  odd = odds[0] + odds[1] + odds[2] + odds[3];
}

// One row of the others, and the rows of a tile that it concerns. cell[n] is where the weights of tile row first + n
// and this row lie, shift by shift.
struct Step {
  int first, count;
  int64_t row;
  float* cell[ROWS];
};

// cell[n][t] = Σ_c q[c] · k[c] shifted by t: the products of N query rows with one key row.
template <int N, int T>
void dots(const float* q, int64_t q_pitch, const float* k, int64_t plane, int chans, float* const* cell, int64_t at) {
  vec acc[N][T];
  for (int n = 0; n < N; n++)
    for (int t = 0; t < T; t++) acc[n][t] = vec{};
  for (int c = 0; c < chans; c++, q += plane, k += plane) {
    vec x[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) x[n] = load(q + n * q_pitch);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      vec y = load(k + t);
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) acc[n][t] += x[n] * y;
    }
  }
  for (int n = 0; n < N; n++)
    for (int t = 0; t < T; t++) store(cell[n] + at + t * L, acc[n][t]);
}

typedef void (*Dots)(const float*, int64_t, const float*, int64_t, int, float* const*, int64_t);
template <int N> Dots dots_of(int shifts) {
  switch (shifts) {
    case 1: return dots<N, 1>;
    case 2: return dots<N, 2>;
    case 3: return dots<N, 3>;
#if defined(__AVX512F__)
    case 4: return dots<N, 4>;
    case 5: return dots<N, 5>;
    case 6: return dots<N, 6>;
#endif
    default: return dots<N, SHIFTS>;
  }
}

// Of all steps and shifts; `offset` moves the cells.
void all_dots(const Step* steps, int count, const float* q, const float* k, const Layout& at, int shifts, int64_t offset) {
  for (int t = 0; t < shifts; t += SHIFTS) {
    const int n = std::min(SHIFTS, shifts - t);
    const Dots by_rows[] = {
        dots_of<1>(n), dots_of<2>(n), dots_of<3>(n),
#if defined(__AVX512F__)
        dots_of<4>(n),
#endif
    };
    for (const Step* s = steps; s < steps + count; s++)
      by_rows[s->count - 1](q + s->first * at.pitch, at.pitch, k + s->row + t, at.plane, at.chans, s->cell, offset + t * L);
  }
}

// acc[n][c] += Σ_steps Σ_t cell[n][t] · x[c] shifted by t. `offset` leads to other weights of the same pairs.
template <int N, bool CAREFUL>
void add(vec (*acc)[CHANS], const Step* from, const Step* to, const float* x, int64_t plane, int shifts, int64_t offset,
         int64_t cell_step, int64_t x_step) {
  vec a[N][CHANS];
#pragma GCC unroll 4
  for (int n = 0; n < N; n++)
#pragma GCC unroll 4
    for (int c = 0; c < CHANS; c++) a[n][c] = acc[n][c];
  for (; from < to; from++) {
    const float* y = x + from->row;
    const float* w[N];
    for (int n = 0; n < N; n++) w[n] = from->cell[n] + offset;
    for (int t = 0; t < shifts; t++, y += x_step) {
      vec v[CHANS];
#pragma GCC unroll 4
      for (int c = 0; c < CHANS; c++) v[c] = load(y + c * plane);
#pragma GCC unroll 4
      for (int n = 0; n < N; n++) {
        vec weight = load(w[n] + t * cell_step);
        const ivec exists = CAREFUL ? there(load(w[n] + t * cell_step - offset)) : ivec{};
#pragma GCC unroll 4
        for (int c = 0; c < CHANS; c++) a[n][c] += CAREFUL ? (exists ? weight * v[c] : vec{}) : weight * v[c];
      }
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; n++)
#pragma GCC unroll 4
    for (int c = 0; c < CHANS; c++) acc[n][c] = a[n][c];
}

// The weighted sums of CHANS channels for all rows of a tile. Steps of the same rows run in the same registers.
void weighted_sum(vec (*acc)[CHANS], const Step* steps, int count, const float* x, int64_t plane, int shifts,
                  int64_t offset, int64_t cell_step, int64_t x_step, bool careful) {
  typedef void (*Add)(vec (*)[CHANS], const Step*, const Step*, const float*, int64_t, int, int64_t, int64_t, int64_t);
  constexpr Add fast[] = {add<1, false>, add<2, false>, add<3, false>, add<ROWS, false>};
  constexpr Add slow[] = {add<1, true>, add<2, true>, add<3, true>, add<ROWS, true>};
  memset(acc, 0, sizeof(vec) * ROWS * CHANS);
  for (const Step *s = steps, *end = steps + count, *next; s < end; s = next) {
    for (next = s + 1; next < end && next->first == s->first && next->count == s->count;) next++;
    (careful ? slow : fast)[s->count - 1](acc + s->first, s, next, x, plane, shifts, offset, cell_step, x_step);
  }
}

// The shifts that a tile of columns needs: from `low` to `high`.
struct Shifts {
  int low, high;
  int count() const { return high - low + 1; }
};

// What forward and backward share on a strip of rows: packed rows, the tile's logits, and the additions to them.
struct Strip {
  const Case& c;
  const Part part;
  Axis down, right;
  Layout at;
  int query_from, key_from;  // the first rows of the rings
  int key_to;                // the first row of keys that is not packed yet
  float *q, *k, *v;
  float *cells;     // p (and behind it the gradients) of a tile: row of the tile, row of its window, shift, column
  float *of_rows, *of_cols;  // q · r by offset
  int32_t *border;            // -1 where a pair exists, or 0: shift, column
  int32_t *real = nullptr;    // -1 where a key is not masked, or 0: row, column
  const int32_t *real_row;    // of the pair that is visited
  const float *bias;          // of this head, where offset (0, 0) is
  int64_t row_cells, cells_size, bias_pitch;

  // `waiting`: rows of queries that are kept at once.
  Strip(const Case& c, const Part& part, int query_from, int waiting)
      : c(c), part(part), down(count(c.height, part.down, c.dilation), c.window_rows, c.shifted),
        right(count(c.width, part.right, c.dilation), c.window_cols, c.shifted),
        at(right.length, right.reach, c.dim, std::max(down.window + ROWS, waiting)), query_from(query_from),
        key_from(down.first(query_from)), key_to(key_from) {
    row_cells = int64_t(down.window) * right.offsets() * L;
    cells_size = ROWS * row_cells;
    bias_pitch = 2 * right.full + 1;
    bias = c.bias ? c.bias + (part.h * (2 * down.full + 1) + down.full) * bias_pitch + right.full : nullptr;
  }
  static int count(int64_t length, int residue, int64_t dilation) { return (length - residue + dilation - 1) / dilation; }

  void carve(Carver& from, int grids) {
    q = from.take(at.size());
    k = from.take(at.size());
    v = from.take(at.size());
    cells = from.take(grids * cells_size);
    of_rows = from.take(int64_t(down.offsets()) * L);
    of_cols = from.take(int64_t(right.offsets()) * L);
    border = from.take<int32_t>(right.offsets() * round_up(at.width, L));
    if (c.mask) real = from.take<int32_t>(at.size(1));
  }

  void set_border() {
    const int64_t pitch = round_up(right.length, L);
    for (int d = -right.reach; d <= right.reach; d++)
      for (int x = 0; x < pitch; x++)
        border[(d + right.reach) * pitch + x] =
            x < right.length && x + d >= right.first(x) && x + d <= right.last(x) ? -1 : 0;
    if (c.mask) memset(real, 0, 4 * at.size(1));
  }

  // Sees to it that all keys are there that the query rows before `to` look at.
  template <class T> void pack_keys(int to, const Tokens& keys, const Tokens& values) {
    to = down.last(to - 1) + 1;
    pack<T>(c, keys, c.mask, part, key_to, to, key_from, 1.f, at, k);
    pack<T>(c, values, c.mask, part, key_to, to, key_from, 1.f, at, v);
    for (; key_to < to; key_to++) {
      if (!c.mask) continue;
      const uint8_t* mask = c.mask + (part.b * c.height + part.down + key_to * c.dilation) * c.width + part.right;
      int32_t* row = real + at.start() + at.slot(key_to - key_from);
      for (int x = 0; x < right.length; x++) row[x] = mask[x * c.dilation] ? -1 : 0;
    }
  }

  int64_t query_row(int i) const { return at.start() + at.slot(i - query_from); }

  Shifts query_shifts(int x) const {
    if (!right.shifted) return {-right.reach, right.reach};
    Shifts s{right.reach, -right.reach};
    for (int i = x; i < std::min(x + L, right.length); i++)
      s = {std::min(s.low, right.first(i) - i), std::max(s.high, right.last(i) - i)};
    return s;
  }
  Shifts key_shifts(int x) const {
    if (!right.shifted) return {-right.reach, right.reach};
    Shifts s{right.reach, -right.reach};
    for (int j = x; j < std::min(x + L, right.length); j++)
      s = {std::min(s.low, j - right.last_query(j)), std::max(s.high, j - right.first_query(j))};
    return s;
  }

  // The key rows that the query rows [y, y + rows) look at.
  int query_steps(int y, int rows, int x, const Shifts& s, Step* steps) const {
    int count = 0;
    for (int j = down.first(y); j <= down.last(y + rows - 1); j++) {
      Step& step = steps[count++];
      step.first = step.count = 0;
      step.row = at.slot(j - key_from) + x + s.low;
      for (int n = 0; n < rows; n++) {
        const int i = y + n;
        if (j < down.first(i) || j > down.last(i)) continue;
        if (!step.count) step.first = n;
        step.cell[step.count++] =
            cells + n * row_cells + (int64_t(j - down.first(i)) * right.offsets() + s.low + right.reach) * L;
      }
    }
    return count;
  }

  // Calls visit(cell, key row, shift) for each pair of a tile's query row i.
  template <class Visit> void each_pair(int n, int i, const Shifts& s, Visit visit) {
    for (int j = down.first(i); j <= down.last(i); j++) {
      float* cell = cells + n * row_cells + (int64_t(j - down.first(i)) * right.offsets() + right.reach) * L;
      if (c.mask) real_row = real + at.start() + at.slot(j - key_from);
      for (int d = s.low; d <= s.high; d++) visit(cell + d * L, j, d);
    }
  }

  // Which of the pairs of query row i from column x on exist with key row j, shifted by d: -1 or 0. For each_pair.
  ivec exists(int i, int x, int j, int d) const {
    ivec yes = load(border + (d + right.reach) * round_up(right.length, L) + x);
    if (c.mask) yes &= load(real_row + x + d);
    if (bias && bias[(j - i) * bias_pitch + d] == -INFINITY) yes = ivec{};
    return yes;
  }

  // Adds embeddings and bias to the products of query row i, and returns the largest logit: -inf where none exists.
  vec finish_logits(int n, int i, int x, const Shifts& s) {
    const float* query = q + query_row(i) + x;
    if (c.rel_rows) {
      for (int o = down.first(i) - i; o <= down.last(i) - i; o++) {
        const float* rel = c.rel_rows + (o + down.full) * c.row_dim;
        vec a{};
        for (int ch = 0; ch < c.row_dim; ch++) a += load(query + ch * at.plane) * rel[ch];
        store(of_rows + (o + down.reach) * L, a);
      }
      const int64_t col_dim = c.dim - c.row_dim;
      for (int o = s.low; o <= s.high; o++) {
        const float* rel = c.rel_cols + (o + right.full) * col_dim;
        vec a{};
        for (int ch = 0; ch < col_dim; ch++) a += load(query + (c.row_dim + ch) * at.plane) * rel[ch];
        store(of_cols + (o + right.reach) * L, a);
      }
    }
    vec most = all(-INFINITY);
    each_pair(n, i, s, [&](float* cell, int j, int d) {
      vec a = load(cell);
      if (c.rel_rows) a += load(of_rows + (j - i + down.reach) * L) + load(of_cols + (d + right.reach) * L);
      if (bias) a += bias[(j - i) * bias_pitch + d];
      store(cell, a);
      most = larger(most, exists(i, x, j, d) ? a : all(-INFINITY));
    });
    return most;
  }

  // Puts e^(logit - most) in the place of the logits of query row i, and returns their sum. visit(cell, weight, exists).
  template <class Visit> vec weigh(int n, int i, int x, const Shifts& s, vec& most, Visit visit) {
    most = finish_logits(n, i, x, s);
    most = most == -INFINITY ? vec{} : most;
    vec total{};
    each_pair(n, i, s, [&](float* cell, int j, int d) {
      const ivec yes = exists(i, x, j, d);
      const vec weight = yes ? exponential(load(cell) - most) : all(NONE);
      store(cell, weight);
      total += weight;
      visit(cell, weight, yes);
    });
    return total;
  }

  // 1 / total; 0 where no pair exists. Where pairs exist and all of their logits are -inf, softmax is NaN; but not if it
  // is `part_of` one over further keys.
  vec inverse(vec total, int n, int i, int x, const Shifts& s, bool part_of) {
    const ivec empty = total == 0.f;
    vec none{};
    if (!part_of && any(empty & load(border + right.reach * round_up(right.length, L) + x))) {
      ivec some{};
      each_pair(n, i, s, [&](float* cell, int, int) { some |= there(load(cell)); });
      none = some ? all(NAN) : none;
    }
    return empty ? none : 1.f / total;
  }
};

// How the work is cut: rows of queries (or keys) of one part. It must not depend on what the threads do.
struct Cut {
  int64_t down, right, parts;  // down, right: residues of the dilation
  int rows, strips;
  explicit Cut(const Case& c) : down(std::min(c.dilation, c.height)), right(std::min(c.dilation, c.width)) {
    parts = c.batch * c.heads * down * right;
    const int height = (c.height + c.dilation - 1) / c.dilation;
    strips = 1;
    // All processors should end at about the same time; but each cut computes a window's rows twice, going backwards.
    auto idle = [&](int64_t items) { return (items + c.threads - 1) / c.threads * c.threads - items; };
    while (idle(parts * strips) * 8 > parts * strips && height > (strips + 1) * 2 * ROWS) strips++;
    rows = round_up((height + strips - 1) / strips, ROWS);
    strips = (height + rows - 1) / rows;
  }
  int64_t items() const { return parts * strips; }
  Part part(const Case& c, int64_t item) const {
    const int64_t number = item / strips, head = number / (down * right);
    return {int(head / c.heads), int(head % c.heads), int(number / right % down), int(number % right)};
  }
};

// DONE, or why the case cannot be computed.
int check(const Case& c) {
  constexpr int64_t most = 1 << 28;
  for (int64_t size : {c.batch, c.heads, c.height, c.width, c.dim, c.threads})
    if (size < 1 || size > most) return INVALID;
  for (int64_t window : {c.window_rows, c.window_cols})
    if (window < 1 || window % 2 == 0) return INVALID;
  if (c.dilation < 1 || c.row_dim < 0 || c.row_dim > c.dim || !c.rel_rows != !c.rel_cols) return INVALID;
  if (c.shifted && (c.window_rows > c.height / c.dilation || c.window_cols > c.width / c.dilation)) return INVALID;
  // In floating point, for it may be more than an integer holds: numbers in all rings of a strip.
  const Axis down(c.height, c.window_rows, c.shifted), right(c.width, c.window_cols, c.shifted);
  const double rows = 2. * down.window + 3 * ROWS, pitch = 3. * c.width + 4 * L;
  const double planes = rows * pitch * (c.dim + CHANS), weights = rows * down.window * right.offsets() * pitch;
  const double shared = (1. * down.offsets() + right.offsets()) * c.dim + 1. * down.offsets() * right.offsets();
  return 7 * planes + 3 * weights + L * shared > 1e15 ? NO_MEMORY : DONE;
}

template <class T>
int forward_strip(const Case& c, const Part& part, int from, int to, const Tokens& q, const Tokens& k, const Tokens& v,
                  const Tokens& out, float* lse, bool careful) {
  to = std::min(to, Strip::count(c.height, part.down, c.dilation));
  if (from >= to) return DONE;
  Strip strip(c, part, from, ROWS);
  const Layout& at = strip.at;
  float* mixed;
  Step* steps;
  auto carve = [&](Carver carver) {
    strip.carve(carver, 1);
    mixed = carver.take(at.size());
    steps = carver.take<Step>(strip.down.window + ROWS);
    return carver.used;
  };
  if (!scratch.reserve(carve({nullptr}))) return NO_MEMORY;
  carve({scratch.data});
  strip.set_border();
  vec odd{};
  for (int y = from; y < to; y += ROWS) {
    const int rows = std::min(ROWS, to - y);
    pack<T>(c, q, nullptr, part, y, y + rows, from, c.scale, at, strip.q);
    strip.pack_keys<T>(y + rows, k, v);
    for (int x = 0; x < at.width; x += L) {
      const Shifts s = strip.query_shifts(x);
      const int count = strip.query_steps(y, rows, x, s, steps);
      all_dots(steps, count, strip.q + strip.query_row(y) + x, strip.k + at.start(), at, s.count(), 0);
      vec inverse[ROWS];
      for (int n = 0; n < rows; n++) {
        vec most;
        const vec total = strip.weigh(n, y + n, x, s, most, [](float*, vec, ivec) {});
        inverse[n] = strip.inverse(total, n, y + n, x, s, lse);
        if (careful) {  // large values must not overflow in the sum
          strip.each_pair(n, y + n, s, [&](float* cell, int, int) {
            const vec weight = load(cell);
            store(cell, there(weight) ? weight * inverse[n] : weight);
          });
          inverse[n] = all(1.f);
        }
        if (lse) {
          const vec sum = most + logarithm(total < 1.f ? all(1.f) : total) + (total - total);
          const vec l = total == 0.f ? all(-INFINITY) : sum;
          const int64_t row = part.down + (y + n) * c.dilation;
          float* to_lse = lse + ((int64_t(part.b) * c.heads + part.h) * c.height + row) * c.width + part.right;
          for (int e = 0; e < L && x + e < at.width; e++) to_lse[(x + e) * c.dilation] = l[e];
        }
      }
      for (int ch = 0; ch < at.chans; ch += CHANS) {
        vec acc[ROWS][CHANS];
        weighted_sum(acc, steps, count, strip.v + at.start() + ch * at.plane, at.plane, s.count(), 0, L, 1, careful);
        float* to_mixed = mixed + at.start() + x + ch * at.plane;
        for (int n = 0; n < rows; n++)
          for (int i = 0; i < CHANS; i++) store(to_mixed + n * at.pitch + i * at.plane, acc[n][i] * inverse[n]);
      }
    }
    unpack<T>(c, out, part, y, y + rows, at, mixed, odd);
  }
  return any(odd != odd) && !careful ? NOT_FINITE : DONE;
}

// Gradients of what all pixels share, summed over one strip, lane by lane. They reach as far as the longest part of a
// grid does, so that those of all strips can be added.
struct Shared {
  vec *rows = nullptr, *cols = nullptr, *bias = nullptr;
  Axis down, right;
  explicit Shared(const Case& c)
      : down(Strip::count(c.height, 0, c.dilation), c.window_rows, c.shifted),
        right(Strip::count(c.width, 0, c.dilation), c.window_cols, c.shifted) {}
  int64_t num_rows(const Case& c) const { return c.rel_rows ? down.offsets() * c.row_dim : 0; }
  int64_t num_cols(const Case& c) const { return c.rel_rows ? right.offsets() * (c.dim - c.row_dim) : 0; }
  int64_t num_bias(const Case& c) const { return c.bias ? int64_t(down.offsets()) * right.offsets() : 0; }
};

// Adds mine · by[o] to sums[o], one offset after another, and returns Σ_o by[o] · rel[o].
template <bool CAREFUL>
vec spread(vec mine, const vec* by, int offsets, const float* rel, vec* sums, int64_t pitch) {
  vec a{};
  for (int o = 0; o < offsets; o++, rel += pitch, sums += pitch) {
    *sums += CAREFUL ? (there(by[o]) ? mine * by[o] : vec{}) : mine * by[o];
    a += CAREFUL ? (there(by[o]) ? by[o] * *rel : vec{}) : by[o] * *rel;
  }
  return a;
}

template <class T>
int backward_strip(const Case& c, const Part& part, int from, int to, const Tokens& q, const Tokens& k, const Tokens& v,
                   const Tokens& d_out, const float* d_lse, const Tokens& d_q, const Tokens& d_k, const Tokens& d_v,
                   float* shared_out, bool careful) {
  const Axis down(Strip::count(c.height, part.down, c.dilation), c.window_rows, c.shifted);
  to = std::min(to, down.length);
  if (from >= to) return DONE;
  // All queries that look at this strip's keys, and all keys that those and the strip's own queries look at.
  const int query_from = std::min(from, down.first_query(from)), query_to = std::max(to, down.last_query(to - 1) + 1);
  // Rows wait for their keys: a window (or two, where it is shifted) and the tiles on both sides.
  Strip strip(c, part, query_from, (c.shifted ? 2 : 1) * down.window + 2 * ROWS);
  const Layout& at = strip.at;
  const Axis& right = strip.right;
  const int64_t shift_size = at.pitch, slot_size = down.window * right.offsets() * shift_size;
  const int64_t ring_size = at.slots * slot_size + at.start() + L;

  float *go, *dq, *dk, *dv, *ring_p, *ring_g;
  Step* steps;
  vec *by_row, *by_col;
  Shared shared(c);
  const int64_t num_rows = shared.num_rows(c), num_cols = shared.num_cols(c), num_bias = shared.num_bias(c);
  auto carve = [&](Carver carver) {
    strip.carve(carver, 2);
    for (float** part_of : {&go, &dq, &dk, &dv}) *part_of = carver.take(at.size());
    for (float** part_of : {&ring_p, &ring_g}) *part_of = carver.take(ring_size);
    steps = carver.take<Step>(2 * down.window + 3 * ROWS);
    by_row = carver.take<vec>(down.offsets());
    by_col = carver.take<vec>(right.offsets());
    shared.rows = carver.take<vec>(num_rows);
    shared.cols = carver.take<vec>(num_cols);
    shared.bias = carver.take<vec>(num_bias);
    return carver.used;
  };
  if (!scratch.reserve(carve({nullptr}))) return NO_MEMORY;
  carve({scratch.data});
  memset(ring_p, 0, 4 * ring_size);
  memset(ring_g, 0, 4 * ring_size);
  std::fill_n(shared.rows, num_rows, vec{});
  std::fill_n(shared.cols, num_cols, vec{});
  std::fill_n(shared.bias, num_bias, vec{});
  strip.set_border();
  vec odd{};
  const int64_t g = strip.cells_size;  // from p to the gradient of its logit

  // The queries [y, y + rows): p and the gradients of the logits into the ring, and what they give to q and shared.
  auto queries = [&](int y, int rows) {
    pack<T>(c, q, nullptr, part, y, y + rows, query_from, c.scale, at, strip.q);
    pack<T>(c, d_out, nullptr, part, y, y + rows, query_from, 1.f, at, go);
    strip.pack_keys<T>(y + rows, k, v);
    for (int x = 0; x < at.width; x += L) {
      const Shifts s = strip.query_shifts(x);
      const int count = strip.query_steps(y, rows, x, s, steps);
      const int64_t here = strip.query_row(y) + x, tile = at.start() + x;
      all_dots(steps, count, strip.q + here, strip.k + at.start(), at, s.count(), 0);
      all_dots(steps, count, go + here, strip.v + at.start(), at, s.count(), g);
      for (int n = 0; n < rows; n++) {
        const int i = y + n;
        const bool own = i >= from && i < to;
        const int64_t row = part.down + i * c.dilation;
        const int64_t place = ((int64_t(part.b) * c.heads + part.h) * c.height + row) * c.width + part.right;
        vec most, delta{};  // the weights are made anew from `most`: a stored logarithm of their sum is not exact enough
        const vec total = strip.weigh(n, i, x, s, most, [&](float* cell, vec weight, ivec exists) {
          delta += exists ? weight * load(cell + g) : vec{};
        });
        const vec inverse = strip.inverse(total, n, i, x, s, d_lse);
        delta *= inverse;
        for (int e = 0; d_lse && e < L && x + e < at.width; e++) delta[e] -= d_lse[place + (x + e) * c.dilation];
        if (c.rel_rows) {
          std::fill_n(by_row, down.offsets(), all(NONE));
          std::fill_n(by_col, right.offsets(), all(NONE));
        }
        float* slot_p = ring_p + at.start() + (i - query_from) % at.slots * slot_size + x;
        float* slot_g = ring_g + (slot_p - ring_p);
        for (int o = 0; o < down.last(i) - down.first(i) + 1; o++)
          for (int d = 0; d < right.offsets(); d++)
            if (d < s.low + right.reach || d > s.high + right.reach) {
              store(slot_p + (int64_t(o) * right.offsets() + d) * shift_size, all(NONE));
              store(slot_g + (int64_t(o) * right.offsets() + d) * shift_size, vec{});
            }
        strip.each_pair(n, i, s, [&](float* cell, int j, int d) {
          const vec weight = load(cell);
          const ivec exists = there(weight);
          const vec p = exists ? weight * inverse : weight;
          const vec change = exists ? p * (load(cell + g) - delta) + 0.f : weight;  // + 0: this is never -0
          store(cell + g, change);
          const int64_t to_slot = (int64_t(j - down.first(i)) * right.offsets() + d + right.reach) * shift_size;
          store(slot_p + to_slot, p);
          store(slot_g + to_slot, change);
          if (own && c.rel_rows) by_row[j - i + down.reach] += change, by_col[d + right.reach] += change;
          if (own && c.bias)
            shared.bias[int64_t(j - i + shared.down.reach) * shared.right.offsets() + d + shared.right.reach] += change;
        });
        if (own && c.rel_rows) {
          const float* query = strip.q + here + n * at.pitch;
          float* to_q = dq + tile + n * at.pitch;
          const int64_t row_dim = c.row_dim, col_dim = c.dim - row_dim;
          auto add = careful ? spread<true> : spread<false>;
          for (int ch = 0; ch < c.dim; ch++) {
            const vec mine = load(query + ch * at.plane);
            vec a;
            if (ch < row_dim) {
              const int64_t skipped = shared.down.reach - down.reach;
              const float* rel = c.rel_rows + (down.full - down.reach) * row_dim + ch;
              a = add(mine, by_row, down.offsets(), rel, shared.rows + skipped * row_dim + ch, row_dim);
            } else {
              const int64_t skipped = shared.right.reach - right.reach, col = ch - row_dim;
              const float* rel = c.rel_cols + (right.full - right.reach) * col_dim + col;
              a = add(mine, by_col, right.offsets(), rel, shared.cols + skipped * col_dim + col, col_dim);
            }
            store(to_q + ch * at.plane, a);
          }
        }
      }
      if (y + rows <= from || y >= to) continue;
      for (int ch = 0; ch < at.chans; ch += CHANS) {
        vec acc[ROWS][CHANS];
        weighted_sum(acc, steps, count, strip.k + at.start() + ch * at.plane, at.plane, s.count(), g, L, 1, careful);
        for (int n = 0; n < rows; n++)
          for (int i = 0; i < CHANS; i++) {
            float* to_q = dq + tile + n * at.pitch + (ch + i) * at.plane;
            const vec more = c.rel_rows && ch + i < c.dim ? load(to_q) : vec{};
            store(to_q, (acc[n][i] + more) * c.scale);
          }
      }
    }
    for (int i = y; i < y + rows; i++)
      if (i >= from && i < to) unpack<T>(c, d_q, part, i, i + 1, at, dq + (i - y) * at.pitch, odd);
  };

  // The keys [y, y + rows): what all their queries, which lie in the ring, give to k and v.
  auto keys = [&](int y, int rows) {
    for (int x = 0; x < at.width; x += L) {
      const Shifts s = strip.key_shifts(x);
      int count = 0;
      for (int i = down.first_query(y); i <= down.last_query(y + rows - 1); i++) {
        Step& step = steps[count++];
        step.first = step.count = 0;
        step.row = at.slot(i - query_from) + x - s.low;
        for (int n = 0; n < rows; n++) {
          const int j = y + n;
          if (j < down.first(i) || j > down.last(i)) continue;
          if (!step.count) step.first = n;
          step.cell[step.count++] = ring_p + at.start() + (i - query_from) % at.slots * slot_size +
              (int64_t(j - down.first(i)) * right.offsets() + s.low + right.reach) * shift_size + x - s.low;
        }
      }
      const int64_t tile = at.start() + x;
      for (int ch = 0; ch < at.chans; ch += CHANS) {
        vec acc[ROWS][CHANS];
        const int64_t plane = at.start() + ch * at.plane;
        weighted_sum(acc, steps, count, strip.q + plane, at.plane, s.count(), ring_g - ring_p, shift_size - 1, -1, careful);
        for (int n = 0; n < rows; n++)
          for (int i = 0; i < CHANS; i++) store(dk + tile + n * at.pitch + (ch + i) * at.plane, acc[n][i]);
        weighted_sum(acc, steps, count, go + plane, at.plane, s.count(), 0, shift_size - 1, -1, careful);
        for (int n = 0; n < rows; n++)
          for (int i = 0; i < CHANS; i++) store(dv + tile + n * at.pitch + (ch + i) * at.plane, acc[n][i]);
      }
    }
    unpack<T>(c, d_k, part, y, y + rows, at, dk, odd);
    unpack<T>(c, d_v, part, y, y + rows, at, dv, odd);
  };

  int ready = from;  // keys before it are done
  for (int y = query_from; y < query_to; y += ROWS) {
    const int done = std::min(y + ROWS, query_to);
    queries(y, done - y);
    while (ready < to) {
      const int rows = std::min(ROWS, to - ready);
      if (down.last_query(ready + rows - 1) >= done) break;
      keys(ready, rows);
      ready += rows;
    }
  }
  const vec* const sums[] = {shared.rows, shared.cols, shared.bias};
  const int64_t counts[] = {num_rows, num_cols, num_bias};
  for (int n = 0; n < 3; n++)
    for (int64_t i = 0; i < counts[n]; i++) {
      odd += sums[n][i] * 0.f;
      *shared_out++ = sum(sums[n][i]);
    }
  return any(odd != odd) && !careful ? NOT_FINITE : DONE;
}

// Runs strip(part, from, to, item, careful) for all strips, each once more if its results are not finite.
template <class Run> int each_strip(const Case& c, const Cut& cut, Run run) {
  const int64_t items = cut.items();
  int worst = DONE;
#pragma omp parallel for schedule(dynamic) num_threads(c.threads) reduction(max : worst)
  for (int64_t item = 0; item < items; item++) {
    const Part part = cut.part(c, item);
    const int from = item % cut.strips * cut.rows;
    int state = run(part, from, from + cut.rows, item, false);
    if (state == NOT_FINITE) state = run(part, from, from + cut.rows, item, true);
    worst = std::max(worst, state);
  }
  return worst;
}

// Beyond the longest axis all dilations are the same: each pixel is alone.
Case sober(Case c) {
  c.dilation = std::min(c.dilation, std::max(c.height, c.width));
  return c;
}

}  // namespace

extern "C" {

// Fills `out` and, where it is given, `lse` (batch, heads, height, width): the logarithm of Σ_j e^logit; the softmax is
// then part of one over further keys. 0 is success, 1 no memory, 2 a case that is none.
int local_attention_forward(const Case* given, const Tokens* q, const Tokens* k, const Tokens* v, const Tokens* out,
                            float* lse) {
  if (const int wrong = check(*given)) return wrong;
  const Case c = sober(*given);
  auto strip = c.bf16 ? forward_strip<uint16_t> : forward_strip<float>;
  return each_strip(c, Cut(c), [&](const Part& part, int from, int to, int64_t, bool careful) {
    return strip(c, part, from, to, *q, *k, *v, *out, lse, careful);
  });
}

// Gradients of everything, given those of `out` and (or null) of `lse`. d_shared holds those of rel_rows, rel_cols and
// bias (heads, ...) one after another. With d_lse the softmax is part of one over further keys.
int local_attention_backward(const Case* given, const Tokens* q, const Tokens* k, const Tokens* v, const Tokens* d_out,
                             const float* d_lse, const Tokens* d_q, const Tokens* d_k, const Tokens* d_v,
                             float* d_shared) {
  if (const int wrong = check(*given)) return wrong;
  const Case c = sober(*given);
  const Cut cut(c);
  const Shared shared(c);
  const Axis &down = shared.down, &right = shared.right;
  const int64_t rows = shared.num_rows(c), cols = shared.num_cols(c), bias = shared.num_bias(c);
  const int64_t each = rows + cols + bias, items = cut.items();
  float* sums = each ? static_cast<float*>(calloc(items, each * sizeof(float))) : nullptr;
  if (each && !sums) return NO_MEMORY;
  auto strip = c.bf16 ? backward_strip<uint16_t> : backward_strip<float>;
  const int state = each_strip(c, cut, [&](const Part& part, int from, int to, int64_t item, bool careful) {
    return strip(c, part, from, to, *q, *k, *v, *d_out, d_lse, *d_q, *d_k, *d_v, sums + item * each, careful);
  });
  // The tables go on where no pair of pixels reaches: there the gradient is zero.
  const int64_t row_dim = c.row_dim, col_dim = c.dim - row_dim, bias_cols = 2 * right.full + 1;
  const int64_t all_rows = rows ? (2 * down.full + 1) * row_dim : 0, all_cols = cols ? (2 * right.full + 1) * col_dim : 0;
  const int64_t all_bias = bias ? (2 * down.full + 1) * bias_cols : 0;
  float *d_rows = d_shared, *d_cols = d_rows + all_rows, *d_bias = d_cols + all_cols;
  if (each) std::fill_n(d_shared, all_rows + all_cols + c.heads * all_bias, 0.f);
  d_rows += rows ? (down.full - down.reach) * row_dim : 0;
  d_cols += cols ? (right.full - right.reach) * col_dim : 0;
  d_bias += bias ? (down.full - down.reach) * bias_cols + right.full - right.reach : 0;
  for (int64_t item = 0; each && item < items; item++) {
    const float* from = sums + item * each;
    float* to = d_bias + cut.part(c, item).h * all_bias;
    for (int64_t i = 0; i < rows; i++) d_rows[i] += *from++;
    for (int64_t i = 0; i < cols; i++) d_cols[i] += *from++;
    for (int64_t i = 0; i < bias; i++) to[i / right.offsets() * bias_cols + i % right.offsets()] += *from++;
  }
  free(sums);
  return state;
}

}
