// Replays recorded calls of the native twin and compares its output byte by byte: for machines without Python at hand.
//
// A record is five int64 (sizes in bytes of plan, tables, pixels and output, and the dtype), then the four blocks.
#include <stdio.h>
#include <stdlib.h>

#include "rows.h"

extern "C" int eh_preprocess(const EhPlan*, const float*, const int16_t*, int, void*, int, const char*);

static void* block(FILE* file, int64_t bytes) {
  void* memory = malloc((size_t)bytes);
  if (!memory || fread(memory, 1, (size_t)bytes, file) != (size_t)bytes) exit(2);
  return memory;
}

int main(int, char** arguments) {
  FILE* file = fopen(arguments[1], "rb");
  if (!file) return 2;
  int64_t sizes[5];
  int calls = 0, wrong = 0;
  while (fread(sizes, sizeof(sizes), 1, file) == 1) {
    EhPlan* plan = (EhPlan*)block(file, sizes[0]);
    float* tables = (float*)block(file, sizes[1]);
    int16_t* pixels = (int16_t*)block(file, sizes[2]);
    void* expected = block(file, sizes[3]);
    void* out = malloc((size_t)sizes[3]);
    const int failure = eh_preprocess(plan, tables, pixels, (int)sizes[4], out, 2, NULL);
    wrong += failure != 0 || memcmp(out, expected, (size_t)sizes[3]) != 0;
    ++calls;
    free(plan), free(tables), free(pixels), free(expected), free(out);
  }
  fclose(file);
  printf("%d calls, %d wrong\n", calls, wrong);
  return wrong != 0;
}
