/*
 * Preloaded into the daemon by a test: shifts its wall clock and slows its disk, as the file
 * named by MEDDLE_WITH says. It holds two numbers of the machine: seconds to add to the time,
 * and milliseconds that an fsync takes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile long *meddle;

__attribute__((constructor)) static void begin(void) {
	const char *path = getenv("MEDDLE_WITH");
	int file = path ? open(path, O_RDONLY) : -1;
	if (file < 0)
		return;
	void *shared = mmap(NULL, 2 * sizeof(long), PROT_READ, MAP_SHARED, file, 0);
	if (shared != MAP_FAILED)
		meddle = shared;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
	int result = syscall(SYS_clock_gettime, clock, now);
	if (result == 0 && clock == CLOCK_REALTIME && meddle)
		now->tv_sec += meddle[0];
	return result;
}

int fsync(int file) {
	if (meddle)
		usleep(meddle[1] * 1000);
	return syscall(SYS_fsync, file);
}
