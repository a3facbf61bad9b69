// What Debian's static libstdc++ and libgcc, made for glibc, ask of the C library and musl does not have: with these
// few they become the libstdc++.so.6 that Bun for musl wants, which Debian has no package of (musl-host.mjs).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdint.h>
#include <sys/random.h>

char __libc_single_threaded = 0;
__attribute__((visibility("hidden"))) void* __dso_handle = &__dso_handle;

unsigned arc4random(void) {
  unsigned number = 0;
  return getrandom(&number, sizeof number, 0) < 0 ? 4 : number;
}

struct search {
  uintptr_t address;
  struct dl_find_object* found;
};

static int inside(struct dl_phdr_info* library, size_t bytes, void* data) {
  struct search* search = data;
  uintptr_t first = 0, last = 0, frames = 0;
  (void)bytes;
  for (int i = 0; i < library->dlpi_phnum; i++) {
    const ElfW(Phdr)* part = &library->dlpi_phdr[i];
    uintptr_t at = library->dlpi_addr + part->p_vaddr;
    if (part->p_type == PT_LOAD && search->address >= at && search->address < at + part->p_memsz) {
      first = at;
      last = at + part->p_memsz;
    }
    if (part->p_type == PT_GNU_EH_FRAME) frames = at;
  }
  if (!last || !frames) return 0;
  *search->found = (struct dl_find_object){
      .dlfo_map_start = (void*)first, .dlfo_map_end = (void*)last, .dlfo_eh_frame = (void*)frames};
  return 1;
}

// Where exceptions are unwound: glibc keeps a table for it, which others walk for.
int _dl_find_object(void* address, struct dl_find_object* found) {
  struct search search = {(uintptr_t)address, found};
  return dl_iterate_phdr(inside, &search) ? 0 : -1;
}
