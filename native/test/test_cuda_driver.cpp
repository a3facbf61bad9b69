// The CUDA driver against a library that plays NVIDIA's: what it asks for, in which order, and every bad day.
#include <numeric>

#include "cuda_fixture.h"

using namespace pg;
using namespace pg::gpu;
using namespace pg::gpu::cuda;

namespace {

const PtxKernels kKernels{{{"first", 75, "[first] of Turing"},
                           {"first", 80, "[first] of Ampere"},
                           {"second", 80, "[second] of the longer Ampere"},
                           {"third", 80, "[third] of Ampere's"}}};

FakeCuda& fresh() { return test::freshCuda(); }

std::unique_ptr<CudaDriver> open(int card = 0) {
  return std::make_unique<CudaDriver>(listCards(true).at(size_t(card)), kKernels);
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
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "no NVIDIA driver: /nowhere/libcuda.so.1 was not found");
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "--gpus all");
  fresh();
  fake.init = 100;
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "CUDA_ERROR_FAKE (100): as the test wants. Is there a GPU");
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "shows no GPU: CUDA_VISIBLE_DEVICES is \"\"");
  unsetenv("CUDA_VISIBLE_DEVICES");
  fake.init = 803;
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "(803): as the test wants. Restarting");
  fake.init = 0, fake.version = 10020;
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "too old: it knows CUDA 10.2. Install one for CUDA 11.0");
}

TEST(cuda_driver_lists_cards_and_what_is_wrong_with_them) {
  FakeCuda& fake = fresh();
  fake.devices = 2;
  const std::vector<Card> cards = listCards(true);
  CHECK_EQUAL(cards.size(), 2u);
  CHECK_EQUAL(cards[1].name, "Other Card");
  CHECK_EQUAL(cards[1].index, 1);
  CHECK_EQUAL(cards[0].capability, 89);
  CHECK_EQUAL(cards[0].freeBytes, fake.memory);
  CHECK_EQUAL(cards[0].problem, "");
  CHECK_EQUAL(fake.retained, 0);

  fake.major = 7, fake.minor = 0;
  CHECK_EQUAL(listCards(true)[0].problem, "Fake Card has compute capability 7.0; 7.5 or newer is needed");
  CHECK_FAILS(open(), Code::deviceUnavailable, "\"cuda:0\" cannot be used: Fake Card has compute capability 7.0");
  fake.major = 9;
  CHECK_EQUAL(listCards(false)[0].problem.substr(0, 38), "our CUDA kernels, prebuilds/cuda/kerne");
  fake.devices = 0;
  CHECK_FAILS(listCards(true), Code::deviceUnavailable, "shows no GPU");
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
  const PtxKernels mixed{{{"first", 75, "[first] of Turing"},
                          {"second", 75, "[second] of Turing"},
                          {"second", 80, "[second] of the longer Ampere"}}};
  fake.major = 8, fake.minor = 9, fake.images.clear();
  CudaDriver newest(listCards(true).at(0), mixed);   // kernels of one form for all cards are there once
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

TEST(cuda_kernels_are_read_from_their_file) {
  const auto read = [](std::string text) { return readPtx(std::make_shared<const std::string>(std::move(text))); };
  const std::string file("add 75 5\none\n2\0add 80 3\ntwo\0empty 80 0\n\0", 40);
  const PtxKernels kernels = read(file);
  CHECK_EQUAL(kernels.list.size(), 3u);
  CHECK_EQUAL(kernels.list[0].text, "one\n2");
  CHECK_EQUAL(kernels.list[0].text.data()[5], '\0');
  CHECK_EQUAL(kernels.list[1].capability, 80);
  CHECK_EQUAL(kernels.list[1].text, "two");
  CHECK_EQUAL(kernels.list[2].name, "empty");
  CHECK(read("").list.empty());
  for (size_t end = 1; end < file.size(); ++end)
    if (end != 15 && end != 28) CHECK_FAILS(read(file.substr(0, end)), Code::deviceUnavailable, "damaged");
  for (const char* bad : {"add 75 99999999999999999999\n", "add 75 4x\none", "add  4\none", "\n"})
    CHECK_FAILS(read(bad), Code::deviceUnavailable, "damaged");
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
