// Calls the C++ path of local attention with random cases, for AddressSanitizer and UBSan to watch.
//
//   native_fuzz FIRST COUNT    seeds FIRST to FIRST + COUNT - 1; prints each kind of result and how often it came
//
// Each buffer has exactly the size that the case says, so that a read or write beyond it ends the program. Where all
// numbers are ordinary, all results must be finite: fresh memory is full of NaN (malloc_fill_byte=255).
#include "../../src/regard/ops/native/local_attention.cpp"

#include <cstdio>
#include <memory>
#include <random>
#include <vector>

namespace {

struct Dice {
  std::mt19937_64 engine;
  int64_t between(int64_t low, int64_t high) { return low + int64_t(engine() % uint64_t(high - low + 1)); }
  bool one_in(int64_t count) { return between(1, count) == 1; }
  float number() { return std::normal_distribution<float>()(engine); }
};

template <class T> T make(float x) {
  if constexpr (sizeof(T) == 4) return x;
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return T(bits >> 16);
}
bool finite(float x) { return std::isfinite(x); }
bool finite(uint16_t x) { return (x & 0x7f80) != 0x7f80; }

// Numbers on the heap, exactly as many as asked for.
template <class T> struct Buffer {
  int64_t count;
  std::unique_ptr<T[]> data;
  explicit Buffer(int64_t count) : count(count), data(new T[count]) {}
  Buffer(int64_t count, Dice& dice) : Buffer(count) {
    for (int64_t i = 0; i < count; i++) data[i] = make<T>(dice.number());
  }
  bool all_finite() const { return std::all_of(data.get(), data.get() + count, [](T x) { return finite(x); }); }
};

// Lays a tensor out in any order of its dimensions, sometimes with gaps, and returns the numbers that it spans.
int64_t lay_out(Tokens& t, const Case& c, Dice& dice) {
  struct Dim {
    int64_t* stride;
    int64_t size;
  };
  std::vector<Dim> dims = {{&t.batch, c.batch}, {&t.head, c.heads}, {&t.row, c.height}, {&t.col, c.width}, {&t.dim, c.dim}};
  if (!dice.one_in(2)) std::shuffle(dims.begin(), dims.end() - dice.between(0, 1), dice.engine);
  int64_t stride = dice.one_in(6) ? 2 : 1, last = 0;
  for (auto dim = dims.rbegin(); dim != dims.rend(); ++dim) {
    *dim->stride = stride;
    last += stride * (dim->size - 1);
    stride = stride * dim->size + (dice.one_in(10) ? dice.between(1, 5) : 0);
    if (dim->size == 1 && dice.one_in(4)) *dim->stride = int64_t(1) << 40;  // which nobody may use
  }
  return last + 1;
}

Case draw(Dice& dice) {
  Case c{};
  c.batch = dice.between(1, 2), c.heads = dice.between(1, 3);
  c.height = dice.one_in(4) ? dice.between(1, 40) : dice.between(1, 9);
  c.width = dice.one_in(3) ? dice.between(1, dice.one_in(4) ? 200 : 70) : dice.between(1, 20);
  c.dim = dice.one_in(4) ? dice.between(1, 40) : dice.between(1, 9);
  c.dilation = dice.one_in(2) ? 1 : dice.one_in(9) ? int64_t(1) << dice.between(1, 62) : dice.between(1, 6);
  c.shifted = dice.one_in(3) && c.dilation <= std::min(c.height, c.width);
  for (int64_t* window : {&c.window_rows, &c.window_cols}) {
    const int64_t length = window == &c.window_rows ? c.height : c.width;
    *window = 2 * dice.between(0, c.shifted ? (length / c.dilation - 1) / 2 : dice.one_in(4) ? length + 2 : 4) + 1;
  }
  c.bf16 = dice.one_in(3), c.threads = dice.one_in(4) ? dice.between(2, 3) : 1;
  c.scale = dice.one_in(50) ? NAN : 0.3f;
  c.row_dim = dice.between(0, c.dim);
  return c;
}

template <class T> void run(Dice& dice, Case c, int& results) {
  std::vector<Buffer<T>> tokens;
  Tokens at[8];  // q, k, v, out, d_out, d_q, d_k, d_v
  for (int i = 0; i < 8; i++) {
    const int64_t span = lay_out(at[i], c, dice);
    if (i < 3 || i == 4) tokens.emplace_back(span, dice);
    else tokens.emplace_back(span);
    for (int64_t j = 0; i != 4 && i > 2 && j < span; j++) tokens[i].data[j] = 0;  // gaps stay as they are
    at[i].data = tokens[i].data.get();
  }
  const auto [q, k, v, out, d_out, d_q, d_k, d_v] = std::tie(at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]);
  const int64_t wide = c.shifted ? 2 : 1, more = c.shifted ? -1 : 0, pixels = c.batch * c.height * c.width;
  const int64_t rows = wide * c.window_rows + more, cols = wide * c.window_cols + more;
  Buffer<float> rel_rows(rows * c.row_dim, dice), rel_cols(cols * (c.dim - c.row_dim), dice);
  Buffer<float> bias(c.heads * rows * cols, dice), lse(c.heads * pixels), d_lse(c.heads * pixels, dice);
  Buffer<uint8_t> mask(pixels);
  const bool with_rel = dice.one_in(2), with_bias = dice.one_in(3);
  for (int64_t i = 0; i < pixels; i++) mask.data[i] = !dice.one_in(4);
  bool ordinary = std::isfinite(c.scale);
  if (with_rel) c.rel_rows = rel_rows.data.get(), c.rel_cols = rel_cols.data.get();
  if (with_bias) {
    c.bias = bias.data.get();
    for (int64_t i = 0; dice.one_in(2) && i < bias.count; i++) bias.data[i] = -INFINITY;
  }
  if (dice.one_in(3)) c.mask = mask.data.get();
  if (!with_rel && !with_bias && !c.shifted && dice.one_in(8))
    c.window_rows = 2 * dice.between(0, int64_t(1) << dice.between(1, 61)) + 1;
  for (int i = dice.one_in(3) ? dice.between(1, 3) : 0; i > 0; i--) {
    const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f};
    Buffer<T>& victim = tokens[std::vector{0, 1, 2, 4}[dice.between(0, 3)]];
    victim.data[dice.between(0, victim.count - 1)] = make<T>(odd[dice.between(0, 4)]);
    ordinary = false;
  }
  scratch.reserve(0);
  free(scratch.data);  // of this thread: the memory of the next call has exactly the size that it asks for
  scratch.data = nullptr, scratch.size = 0;
  const bool part_of = dice.one_in(2);
  const int64_t shared = with_rel * (rel_rows.count + rel_cols.count) + with_bias * bias.count;
  Buffer<float> d_shared(shared);
  int state = local_attention_forward(&c, &q, &k, &v, &out, part_of || dice.one_in(2) ? lse.data.get() : nullptr);
  if (!state)
    state = local_attention_backward(&c, &q, &k, &v, &d_out, part_of ? d_lse.data.get() : nullptr, &d_q, &d_k, &d_v,
                                     d_shared.data.get());
  bool good = d_shared.all_finite();
  for (int i : {3, 5, 6, 7}) good = good && tokens[i].all_finite();
  if (state || (ordinary && !good)) {
    printf("state %d, %s\n", state, good ? "finite" : "not finite");
    exit(1);
  }
  results++;
}

// A case that is none is refused before anything is read.
void spoil(Dice& dice, Case c) {
  int64_t* const fields[] = {&c.batch, &c.heads, &c.height, &c.width, &c.dim, &c.window_rows, &c.window_cols, &c.dilation};
  const int64_t wrong[] = {0, -1, INT64_MIN, INT64_MAX - 1};
  *fields[dice.between(0, 7)] = wrong[dice.between(0, 2)];
  if (dice.one_in(4)) c.window_cols = 2 * dice.between(0, 5);
  if (dice.one_in(4)) c.shifted = 1, c.window_rows = INT64_MAX;
  if (dice.one_in(4)) c.rel_rows = &c.scale, c.rel_cols = nullptr;
  if (dice.one_in(4)) c.threads = wrong[dice.between(0, 3)];
  const Tokens none{};
  if (local_attention_forward(&c, &none, &none, &none, &none, nullptr) != INVALID ||
      local_attention_backward(&c, &none, &none, &none, &none, nullptr, &none, &none, &none, nullptr) != INVALID) {
    printf("a wrong case was taken\n");
    exit(1);
  }
}

}  // namespace

int main(int, char** arguments) {
  const int64_t first = atoll(arguments[1]), count = atoll(arguments[2]);
  int floats = 0, halves = 0;
  for (int64_t seed = first; seed < first + count; seed++) {
    Dice dice{std::mt19937_64(seed)};
    fprintf(stderr, "seed %lld\n", static_cast<long long>(seed));
    const Case c = draw(dice);
    spoil(dice, c);
    if (c.bf16) run<uint16_t>(dice, c, halves);
    else run<float>(dice, c, floats);
  }
  printf("%d float32, %d bfloat16\n", floats, halves);
}
