/* Finding and loading the CUDA module. It is never unloaded: the CUDA runtime has
 * exit handlers of its own, and they must find their code. */
#include "inference/module.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/path.h"

/* A build tree has its programs in DIR/ROOM and, for tests, in DIR/tests/ROOM. */
static const char *const BESIDE[] = {"../inference/" HP_MODULE_FILE,
                                     "../../inference/" HP_MODULE_FILE};

static hp_code beside_program(const char *name, char *ret, hp_error *reterr)
{
    char self[HP_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n <= 0)
        return hp_fail(reterr, HP_E_NOT_FOUND, "no program path");
    self[n] = '\0';
    if (strrchr(self, '/') != NULL)
        *strrchr(self, '/') = '\0';
    return hp_path_fmt(ret, reterr, "%s/%s", self, name);
}

/* What was asked for is the only place; else the first that has the file. The
 * variable is not honoured where privileges were raised. */
static hp_code find(const char *asked, char *ret, hp_error *reterr)
{
    if (asked == NULL)
        asked = secure_getenv("HEPAR_CUDA_MODULE");
    if (asked != NULL && asked[0] != '\0') {
        hp_code r = hp_path_fmt(ret, reterr, "%s", asked);

        if (r != HP_OK || hp_path_exists(ret))
            return r;
        return hp_fail(reterr, HP_E_NOT_FOUND, "no CUDA module at %.150s", asked);
    }
    for (size_t i = 0; i < sizeof BESIDE / sizeof *BESIDE; i++)
        if (beside_program(BESIDE[i], ret, NULL) == HP_OK && hp_path_exists(ret))
            return HP_OK;
    if (hp_path_fmt(ret, NULL, "%s/%s", HP_MODULE_DIR, HP_MODULE_FILE) == HP_OK &&
        hp_path_exists(ret))
        return HP_OK;
    return hp_fail(reterr, HP_E_NOT_FOUND, "no CUDA module is installed");
}

hp_code hp_module_load(const char *path, const hp_backend_ops **ret, hp_error *reterr)
{
    char file[HP_PATH_MAX];
    const hp_backend_module *m;
    void *library;
    hp_code r = find(path, file, reterr);

    if (r != HP_OK)
        return r;
    dlerror();
    library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return hp_fail(reterr, HP_E_UNSUPPORTED, "CUDA module: %.200s", dlerror());
    m = dlsym(library, HP_MODULE_SYMBOL);
    if (m == NULL)
        r = hp_fail(reterr, HP_E_UNSUPPORTED, "%.150s is no module of ours", file);
    else if (m->abi != HP_MODULE_ABI || m->layout != HP_MODULE_LAYOUT)
        r = hp_fail(reterr, HP_E_UNSUPPORTED,
                    "%.150s is of another version: interface %u, this is %u", file,
                    m->abi, HP_MODULE_ABI);
    if (r != HP_OK) {
        dlclose(library); /* nothing of it has run */
        return r;
    }
    *ret = m->ops;
    return HP_OK;
}
