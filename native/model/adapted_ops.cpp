#include "model/adapted_ops.h"

#include <algorithm>

namespace pg {

void AdaptedOps::matmul(ConstView x, std::span<const MatmulJob> jobs, std::span<const AdapterRows> groups) {
  // A product that ends in gelu takes the addition before it, in those rows alone that have one.
  const auto adapted = [&](const AdapterRows& g, const MatmulJob& job) { return g.set && g.set->find(job.linear); };
  const bool split = std::any_of(jobs.begin(), jobs.end(), [&](const MatmulJob& job) {
    return job.epilogue == Epilogue::gelu &&
           std::any_of(groups.begin(), groups.end(), [&](const AdapterRows& g) { return adapted(g, job); });
  });
  if (!split) {
    device_.matmul(x, jobs);
    reserve(groups);
    addUpdates(x, jobs, groups);
    return;
  }
  reserve(groups);
  for (const AdapterRows& g : groups)
    for (const MatmulJob& job : jobs) {
      MatmulJob part = job;
      part.out = job.out.slice(g.row, g.rows);
      const bool late = job.epilogue == Epilogue::gelu && adapted(g, job);
      if (late) part.epilogue = Epilogue::store;
      const ConstView rows = x.slice(g.row, g.rows);
      const AdapterRows all{g.set, 0, g.rows};
      device_.matmul(rows, {&part, 1});
      addUpdates(rows, {&part, 1}, {&all, 1});
      if (late) device_.gelu(part.out);
    }
}

void AdaptedOps::geglu(View out, ConstView x, const Linear& gate, const Linear& up,
                       std::span<const AdapterRows> groups) {
  if (groups.empty()) return device_.geglu(out, x, gate, up);
  // Runs of groups with and without additions: each reads the weights once.
  const auto adapted = [&](const AdapterRows& g) { return g.set && (g.set->find(&gate) || g.set->find(&up)); };
  if (std::any_of(groups.begin(), groups.end(), adapted)) {
    reserve(groups);
    // the wide branch lives in a buffer of its own: addUpdates uses the arena
    const size_t wide = Arena::sizeOf(x.rows, out.cols);
    if (wide_.bytes() < wide) wide_ = Buffer(), wide_ = device_.allocate(wide);
  }
  for (size_t first = 0; first < groups.size();) {
    const bool adds = adapted(groups[first]);
    size_t last = first;
    std::vector<AdapterRows> run;
    const int64_t row = groups[first].row;
    for (; last < groups.size() && adapted(groups[last]) == adds; ++last)
      run.push_back({groups[last].set, groups[last].row - row, groups[last].rows});
    const int64_t rows = groups[last - 1].row + groups[last - 1].rows - row;
    const ConstView xRows = x.slice(row, rows);
    const View outRows = out.slice(row, rows);
    if (!adds) {
      device_.geglu(outRows, xRows, gate, up);
    } else {
      const View upRows = wide_.view(DType::f32, rows, out.cols);
      const MatmulJob jobs[] = {{outRows, &gate}, {upRows, &up}};
      device_.matmul(xRows, jobs);
      addUpdates(xRows, jobs, run);
      device_.gelu(outRows, upRows);
    }
    first = last;
  }
}

// As much as any op of a pass with these rows: ops of a submission may still wait to use the memory, so that it must
// not be replaced within one.
void AdaptedOps::reserve(std::span<const AdapterRows> groups) {
  constexpr size_t kMostJobs = 3;  // that share x: query, key and value
  size_t bytes = 0;
  for (const auto& [set, row, rows] : groups) {
    if (!set) continue;
    const size_t input = set->drops() ? Arena::sizeOf(rows, set->widestInput()) : 0;
    bytes = std::max(bytes, kMostJobs * Arena::sizeOf(rows, set->largestRank()) + input);
  }
  arena_.reset();
  arena_.reserve(bytes);
}

void AdaptedOps::addUpdates(ConstView x, std::span<const MatmulJob> jobs, std::span<const AdapterRows> groups) {
  for (const AdapterRows& g : groups) {
    if (!g.set) continue;
    std::vector<std::pair<const AdapterSet::Product*, View>> wanted;   // with the output's rows
    for (const MatmulJob& job : jobs)
      if (const AdapterSet::Product* product = g.set->find(job.linear))
        wanted.push_back({product, job.out.slice(g.row, g.rows)});
    if (wanted.empty()) continue;
    const ConstView rows = x.slice(g.row, g.rows);
    const bool drops = g.set->drops();
    arena_.reset();
    // all A x at once, since they share x, unless each drops other values of it; then each output's B
    std::vector<MatmulJob> down;
    for (const auto& [product, out] : wanted)
      down.push_back({arena_.take(g.rows, product->down.out()), &product->down});
    if (!drops) {
      device_.matmul(rows, down);
    } else {
      const View kept = arena_.take(rows.rows, rows.cols);
      for (size_t i = 0; i < wanted.size(); ++i) {
        device_.dropout(kept, rows, g.set->dropout(*wanted[i].first));
        device_.matmul(kept, {&down[i], 1});
      }
    }
    for (size_t i = 0; i < wanted.size(); ++i) {
      const MatmulJob up{wanted[i].second, &wanted[i].first->up, Epilogue::add};
      device_.matmul(down[i].out, {&up, 1});
    }
  }
}

}  // namespace pg
