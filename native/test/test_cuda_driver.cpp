// The CUDA driver against a library that plays NVIDIA's: what it asks for, in which order, and every bad day.
#include <numeric>

#include "cuda_fixture.h"

using namespace pg;
using namespace pg::gpu;
using namespace pg::gpu::cuda;

namespace {

using test::stored;
const std::string kOld = stored("[first] of Turing"), kFirst = stored("[first] of Ampere"),
                  kSecond = stored("[second] of the longer Ampere"), kThird = stored("[third] of Ampere's");
const PtxKernel kKernels[] = {
    {"first", 75, 17, kOld}, {"first", 80, 17, kFirst}, {"second", 80, 29, kSecond}, {"third", 80, 19, kThird}};

FakeCuda& fresh() { return test::freshCuda(); }

std::unique_ptr<CudaDriver> open(int card = 0) {
  return std::make_unique<CudaDriver>(listCards(kKernels).at(size_t(card)), kKernels);
}

void launch(Driver& driver, const char* kernel, uint32_t number, const Memory* memory = nullptr) {
  const Binding buffers[] = {{memory, 0}};
  driver.launch(kernel, {2}, {64}, {reinterpret_cast<const uint8_t*>(&number), 4}, buffers);
}

}  // namespace

// First: once the library has been found, it is kept.
TEST(cuda_driver_says_why_there_is_none) {
  FakeCuda& fake = fresh();
  setenv("PALIGEMMA_CUDA_LIBRARY", "/nowhere/libcuda.so.1", 1);
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "no NVIDIA driver: /nowhere/libcuda.so.1 was not found");
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "--gpus all");
  fresh();
  fake.init = 100;
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "CUDA_ERROR_FAKE (100): as the test wants. Is there a GPU");
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "shows no GPU: CUDA_VISIBLE_DEVICES is \"\"");
  unsetenv("CUDA_VISIBLE_DEVICES");
  fake.init = 803;
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "(803): as the test wants. Restarting");
  fake.init = 0, fake.version = 10020;
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "too old: it knows CUDA 10.2. Install one for CUDA 11.0");
}

TEST(cuda_driver_lists_cards_and_what_is_wrong_with_them) {
  FakeCuda& fake = fresh();
  fake.devices = 2;
  const std::vector<Card> cards = listCards(kKernels);
  CHECK_EQUAL(cards.size(), 2u);
  CHECK_EQUAL(cards[1].name, "Other Card");
  CHECK_EQUAL(cards[1].index, 1);
  CHECK_EQUAL(cards[0].capability, 89);
  CHECK_EQUAL(cards[0].freeBytes, fake.memory);
  CHECK_EQUAL(cards[0].problem, "");
  CHECK_EQUAL(fake.retained, 0);

  fake.major = 7, fake.minor = 0;
  CHECK_EQUAL(listCards(kKernels)[0].problem, "Fake Card has compute capability 7.0; 7.5 or newer is needed");
  CHECK_FAILS(open(), Code::deviceUnavailable, "\"cuda:0\" cannot be used: Fake Card has compute capability 7.0");
  fake.major = 9;
  CHECK_EQUAL(listCards({})[0].problem, "this build has no CUDA kernels: it was made without nvcc");
  fake.devices = 0;
  CHECK_FAILS(listCards(kKernels), Code::deviceUnavailable, "shows no GPU");
}

TEST(cuda_driver_moves_bytes_in_order) {
  FakeCuda& fake = fresh();
  for (const int hostMemory : {0, 2}) {
    fake.hostMemory = hostMemory;  // page-locked memory may be refused
    const auto driver = open();
    CHECK_EQUAL(driver->info().name, "Fake Card");
    CHECK_EQUAL(driver->info().groupMemoryBytes, 99u << 10);
    std::vector<uint32_t> values(5'000'000), back(values.size());  // more than the staging takes at once
    std::iota(values.begin(), values.end(), 1u);
    const auto memory = driver->allocate(values.size() * 4 + 8), other = driver->allocate(100);
    CHECK_EQUAL(driver->freeBytes(), fake.memory - values.size() * 4 - 108);
    driver->upload(*memory, 8, values.data(), values.size() * 4);
    driver->download(back.data(), *memory, 8, back.size() * 4);
    CHECK(back == values);
    driver->copy(*other, 4, *memory, 12, 8);
    driver->download(back.data(), *other, 0, 16);
    CHECK((std::vector(back.begin(), back.begin() + 4) == std::vector<uint32_t>{0, 2, 3, 0}));  // zeroed, too
  }
  CHECK_EQUAL(fake.used, 0u);
  for (const int left : {fake.retained, fake.streams, fake.modules, fake.pinned, fake.events, fake.pushed, fake.graphs})
    CHECK_EQUAL(left, 0);
}

TEST(cuda_driver_loads_the_kernels_that_suit_the_card) {
  FakeCuda& fake = fresh();
  const auto ampere = open();
  CHECK((fake.images == std::vector<std::string>{"[first] of Ampere"}));  // one, to see that the driver takes any
  launch(*ampere, "third", 7);
  launch(*ampere, "third", 8);
  CHECK((fake.images == std::vector<std::string>{"[first] of Ampere", "[third] of Ampere's"}));
  fake.kernels.clear(), fake.args.clear(), fake.images.clear();
  fake.major = 7, fake.minor = 5;
  const auto driver = open();
  CHECK((fake.images == std::vector<std::string>{"[first] of Turing"}));
  launch(*driver, "first", 7);
  CHECK((fake.kernels == std::vector<std::string>{"first"}) && fake.args[0] == 7);
  CHECK_FAILS(launch(*driver, "second", 7), Code::internal, "no second");
  const PtxKernel mixed[] = {{"first", 75, 17, kOld}, {"second", 75, 19, kThird}, {"second", 80, 29, kSecond}};
  fake.major = 8, fake.minor = 9, fake.images.clear();
  CudaDriver newest(listCards(mixed).at(0), mixed);   // kernels of one form for all cards are there once
  launch(newest, "second", 7);
  CHECK((fake.images == std::vector<std::string>{"[first] of Turing", "[second] of the longer Ampere"}));
  fake.major = 7, fake.minor = 5;
  fake.module = 222;
  CHECK_FAILS(open(), Code::deviceUnavailable, "Fake Card (compute capability 7.5) does not take our kernel first");
  CHECK_FAILS(open(), Code::deviceUnavailable, "line 3: no such instruction\nA newer NVIDIA driver may");
  fake.module = 0;
  const uint32_t number = 1;
  driver->launch("first", {}, {32}, {reinterpret_cast<const uint8_t*>(&number), 4}, {}, 90 << 10);
  CHECK_EQUAL(fake.sharedMemory, 90u << 10);
}

// The same texts in test/package/ptx.test.ts, which packs.
TEST(cuda_kernels_registers_get_their_numbers_back) {
  CHECK_EQUAL(
      countedFromOne(".reg .f32 %f<4>; mov %r-1, %tid.x; fma %f-1, %f0, %f0; fma %f-1, %f1, %r0; @%p-1 %rd-12;"),
      ".reg .f32 %f<4>; mov %r1, %tid.x; fma %f1, %f1, %f1; fma %f2, %f1, %r1; @%p1 %rd12;");
  CHECK_EQUAL(countedFromOne("100 % sure: 5%, %"), "100 % sure: 5%, %");
  CHECK_EQUAL(countedFromOne(""), "");
}

TEST(cuda_driver_starts_gathered_kernels_as_a_graph) {
  FakeCuda& fake = fresh();
  const auto driver = open();
  const auto step = [&](uint32_t first, uint32_t count) {
    driver->begin();
    for (uint32_t i = 0; i < count; ++i) launch(*driver, i % 2 ? "second" : "third", first + i);
    driver->end(true);
  };
  step(0, 20);
  step(100, 20);   // the same kernels: the graph learns new arguments
  step(200, 21);   // another graph
  step(300, 3);    // not worth one
  CHECK_EQUAL(fake.kernels.size(), 64u);
  CHECK_EQUAL(fake.args[19], 19u);
  CHECK_EQUAL(fake.args[39], 119u);
  CHECK_EQUAL(fake.args[60], 220u);
  CHECK_EQUAL(fake.args[63], 302u);
  CHECK_EQUAL(fake.graphLaunches, 3);
  CHECK_EQUAL(fake.updates, 1);
  CHECK_EQUAL(fake.graphs, 2);

  driver->begin();
  for (uint32_t i = 0; i < 20; ++i) launch(*driver, "third", i);
  driver->end(false);
  CHECK_EQUAL(fake.kernels.size(), 64u);  // not wanted any more

  // what is looked at in between has been computed
  const auto memory = driver->allocate(4);
  uint32_t value = 0;
  driver->begin();
  launch(*driver, "third", 1, memory.get());
  driver->download(&value, *memory, 0, 4);
  CHECK_EQUAL(fake.kernels.size(), 65u);
  launch(*driver, "third", 2, memory.get());
  driver->end(true);
  CHECK_EQUAL(fake.kernels.size(), 66u);
}

TEST(cuda_driver_does_without_graphs_that_cuda_refuses) {
  for (int FakeCuda::* const refusal : {&FakeCuda::capture, &FakeCuda::instantiate, &FakeCuda::update}) {
    FakeCuda& fake = fresh();
    const auto driver = open();
    fake.*refusal = 900;
    for (int turn = 0; turn < 3; ++turn) {
      driver->begin();
      for (uint32_t i = 0; i < 20; ++i) launch(*driver, "first", i);
      driver->end(true);
    }
    CHECK_EQUAL(fake.kernels.size(), 60u);
    CHECK_EQUAL(fake.graphLaunches, refusal == &FakeCuda::update ? 3 : 0);
  }
  FakeCuda& fake = fresh();
  setenv("PALIGEMMA_CUDA_GRAPHS", "0", 1);
  const auto driver = open();
  unsetenv("PALIGEMMA_CUDA_GRAPHS");
  driver->begin();
  for (uint32_t i = 0; i < 20; ++i) launch(*driver, "first", i);
  driver->end(true);
  CHECK_EQUAL(fake.kernels.size(), 20u);
  CHECK_EQUAL(fake.graphLaunches, 0);
}

TEST(cuda_driver_says_what_did_not_fit) {
  FakeCuda& fake = fresh();
  const auto driver = open();
  const auto some = driver->allocate(size_t(60) << 20);
  CHECK_FAILS(driver->allocate(size_t(10) << 20), Code::outOfMemory,
              "Fake Card has 4 MiB of 64 MiB free, but 11 MiB were asked for. Lower contextSize");
  CHECK_EQUAL(driver->allocate(100)->bytes, 100u);  // and goes on
  fake.retain = 2;
  CHECK_FAILS(open(), Code::outOfMemory, "no memory left for a context");
  fake.retain = 46;
  CHECK_FAILS(open(), Code::deviceUnavailable, "Fake Card cannot be used: CUDA_ERROR_FAKE (46)");
}

TEST(cuda_driver_survives_the_loss_of_its_card) {
  FakeCuda& fake = fresh();
  auto driver = open(), neighbour = open();
  auto memory = driver->allocate(64);
  const auto far = neighbour->allocate(64);
  fake.failure = 700;
  CHECK_FAILS(driver->wait(), Code::deviceLost, "Fake Card failed while computing: CUDA_ERROR_FAKE (700)");
  CHECK_FAILS(launch(*driver, "first", 1), Code::deviceLost, "Load the model again");
  CHECK_FAILS(driver->allocate(64), Code::deviceLost, "was lost before");

  auto again = open();  // a new load resets the card
  CHECK_EQUAL(fake.resets, 1);
  const auto fine = again->allocate(64);
  launch(*again, "first", 5);
  CHECK_EQUAL(fake.args.back(), 5u);
  // those from before neither work nor give back what is no longer theirs
  uint32_t value = 0;
  CHECK_FAILS(neighbour->download(&value, *far, 0, 4), Code::deviceLost, "was lost before");
  CHECK_EQUAL(fake.used, 64u);
  memory.reset();
  driver.reset();
  neighbour.reset();
  CHECK_EQUAL(fake.used, 64u);
  again->wait();
  CHECK_EQUAL(fake.retained, 1);
}

TEST(inflate_unpacks_every_kind_of_block) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "add.f32 %f" + std::to_string(i * i * 7919 % 10007) + ";\n";
  // made by zlib: codes of its own, then the fixed ones
  const std::string_view dynamic(
      "\135\224\073\156\004\100\010\103\373\234\042\115\332\150\300\300\200\162\232\225\126\173\377\043\104\112\021"
      "\355\243\264\206\341\143\033\036\317\347\367\113\376\371\365\072\077\037\217\177\160\307\346\035\133\145\002"
      "\273\373\073\256\162\376\357\300\173\164\067\336\157\041\137\105\325\073\236\061\224\123\134\174\117\005\302"
      "\063\220\356\252\321\216\035\141\234\164\302\116\204\327\014\322\151\012\345\352\022\247\070\335\164\010\345"
      "\215\303\272\003\267\045\333\031\273\234\356\200\234\136\342\204\145\161\072\107\173\156\126\024\203\154\110"
      "\135\113\234\240\031\050\216\146\234\364\005\363\245\150\206\103\063\224\056\350\262\024\260\057\171\106\111"
      "\067\314\040\177\024\341\055\133\336\043\175\002\373\136\124\307\111\256\052\111\346\030\264\355\163\264\304"
      "\201\170\271\066\247\227\070\125\214\157\072\273\333\227\363\060\133\307\162\342\132\234\021\245\351\224\055"
      "\251\120\075\164\143\055\016\067\041\035\361\266\234\236\113\232\034\366\153\227\126\225\070\137\213\147\303"
      "\110\266\334\172\155\116\054\362\111\107\114\257\263\206\174\145\351\324\236\127\356\254\063\101\155\256\132"
      "\064\036\207\273\123\353\254\360\114\130\307\131\276\107\276\071\024\307\124\074\063\113\074\255\377\022\363"
      "\367\252\037\051\256\075\333\357\313\223\374\067\375\057",
      311);
  const std::string_view fixed(
      "\113\114\111\321\113\063\066\122\120\115\063\260\346\112\204\163\314\055\015\055\221\371\206\146\246\246\050"
      "\174\043\043\043\144\276\231\231\021\252\176\013\023\024\171\023\013\013\013\024\171\163\063\024\363\314\114"
      "\314\314\220\371\226\226\206\050\326\031\233\230\243\150\067\065\066\101\121\156\152\202\142\234\271\261\005"
      "\212\163\014\015\214\121\274\143\152\204\312\265\060\105\121\156\146\151\211\142\234\261\245\031\212\165\146"
      "\346\250\174\123\143\124\337\131\132\230\030\243\130\157\210\352\131\043\043\024\276\205\241\051\252\163\054"
      "\015\315\121\175\147\200\022\070\026\150\221\143\142\150\152\206\352\073\043\024\347\031\031\032\232\241\106"
      "\006\152\150\030\033\133\230\241\105\216\011\152\142\100\215\034\143\113\113\043\324\340\063\101\065\317\324"
      "\030\065\061\030\240\046\006\063\143\163\224\340\062\064\065\106\341\033\241\105\217\245\261\051\152\152\260"
      "\264\104\061\337\304\014\225\153\156\146\210\226\366\120\203\317\030\045\364\215\314\120\143\307\010\065\160"
      "\215\315\114\121\003\323\322\020\045\156\055\014\014\214\321\042\007\045\362\114\321\162\216\005\132\344\230"
      "\231\241\252\267\100\115\331\026\026\106\150\051\017\305\157\026\046\150\051\021\055\343\130\032\243\106\215"
      "\205\251\261\041\132\124\241\330\156\142\154\156\202\226\161\120\163\202\251\021\212\172\103\264\224\156\212"
      "\026\065\246\226\250\356\065\064\107\115\252\306\306\250\376\263\060\106\055\066\014\121\003\333\330\310\320"
      "\002\055\347\230\240\005\076\152\160\230\130\132\240\025\153\050\346\231\031\232\032\241\306\075\152\051\147"
      "\200\126\114\240\306\215\271\261\205\061\152\302\103\365\234\271\245\031\132\261\202\132\114\030\132\230\030"
      "\240\245\173\024\363\054\015\120\043\307\320\330\014\265\230\101\213\074\143\064\375\306\306\250\346\133\240"
      "\331\157\142\152\214\232\355\121\235\157\141\216\132\044\203\175\017\000",
      450);
  CHECK_EQUAL(inflate(dynamic, text.size()), text);
  CHECK_EQUAL(inflate(fixed, text.size()), text);
  CHECK_EQUAL(inflate(stored(text.substr(0, 600)), 600), text.substr(0, 600));
  CHECK_FAILS(inflate(dynamic, text.size() - 1), Code::internal, "damaged");
  CHECK_FAILS(inflate(dynamic, text.size() + 1), Code::internal, "damaged");
  for (size_t end = 0; end < dynamic.size() - 1; ++end)
    CHECK_FAILS(inflate(dynamic.substr(0, end), text.size()), Code::internal, "damaged");
}
