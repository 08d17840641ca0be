/* A stand-in for libnvidia-ml.so.1 with two GPUs. The memory in use of GPU 0 is
   read from the file that FAKE_NVML_USED names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>

typedef struct { unsigned long long total, free, used; } memory_t;
static int ready;

int nvmlInit_v2(void) { ready = 1; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { if (!ready) return 1; *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **h) { if (i > 1) return 2; *h = (void *)(uintptr_t)(i + 100); return 0; }
int nvmlDeviceGetUUID(void *h, char *s, unsigned int n) { snprintf(s, n, "GPU-0000-%d", (int)((uintptr_t)h - 100)); return 0; }
int nvmlDeviceGetName(void *h, char *s, unsigned int n) { (void)h; snprintf(s, n, "Test Accelerator"); return 0; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
	unsigned long long used = 0;
	const char *file = getenv("FAKE_NVML_USED");
	if ((uintptr_t)h == 100 && file) { FILE *f = fopen(file, "r"); if (!f || fscanf(f, "%llu", &used) != 1) used = 0; if (f) fclose(f); }
	m->total = 80ull << 30; m->used = used; m->free = m->total - used;
	return 0;
}
typedef struct { unsigned int gpu, memory; } rates_t;
int nvmlDeviceGetUtilizationRates(void *h, rates_t *r) { r->gpu = (uintptr_t)h == 100 ? 87 : 0; r->memory = 12; return 0; }
int nvmlDeviceGetTemperature(void *h, int kind, unsigned int *t) { if (kind != 0) return 2; *t = 40 + (unsigned int)((uintptr_t)h - 100); return 0; }
int nvmlDeviceGetPowerUsage(void *h, unsigned int *mw) { *mw = (uintptr_t)h == 100 ? 350000 : 60500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *h, unsigned int *mw) { if ((uintptr_t)h != 100) return 3; *mw = 700000; return 0; }
const char *nvmlErrorString(int rc) { (void)rc; return "test error"; }
