/* Coverage for libFuzzer from GCC, which calls this at every edge (-fsanitize-coverage=trace-pc). libFuzzer
   itself knows other ways only: here each call counts in a table that it was told of. */

#include <stdint.h>

#define COUNTERS 65536

static uint8_t counters[COUNTERS];

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);

__attribute__((constructor)) static void announce(void) {
    __sanitizer_cov_8bit_counters_init(counters, counters + COUNTERS);
}

void __sanitizer_cov_trace_pc(void) {
    uint64_t place = (uint64_t)__builtin_return_address(0);
    uint8_t *counter = &counters[(place * UINT64_C(0x9e3779b97f4a7c15)) >> 48];
    *counter += *counter < 255;
}

/* Of comparisons of floating point numbers libFuzzer makes nothing. */
void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }
