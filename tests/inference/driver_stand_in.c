/* The driver's library where there is no driver: parts of cuDNN (from 9.28 on) are
 * linked to it and do not load without, although a device that is only described
 * needs nothing of it. Every call says that there is no device. */
enum { NO_DEVICE = 100 };

#define MISSING(name)                                                                    \
    int name(void);                                                                      \
    int name(void)                                                                       \
    {                                                                                    \
        return NO_DEVICE;                                                                \
    }

MISSING(cuGetErrorString)
MISSING(cuModuleGetFunction)
MISSING(cuModuleLoadData)
MISSING(cuModuleUnload)
MISSING(cuTensorMapEncodeIm2col)
MISSING(cuTensorMapEncodeTiled)
