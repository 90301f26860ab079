// A stand-in for cuRAND, for tests: candle makes a generator with every device. The project draws on the host and asks it for nothing.
#define API extern "C" __attribute__((visibility("default"))) int
API curandCreateGenerator(void **g, int) { return *g = (void *)16, 0; }
API curandDestroyGenerator(void *) { return 0; }
API curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
API curandSetStream(void *, void *) { return 0; }
