/* Scope-end cleanup for owned pointers (gcc and clang).
 *
 * A type T joins by declaring HP_AUTO_DEFINE(T, T_free) once, after its
 * destructor. Then `hp_auto(T) *x = NULL;` frees at scope end and
 * `hp_steal(&x)` hands the pointer over. Always initialise the variable.
 */
#ifndef HP_BASE_AUTO_H
#define HP_BASE_AUTO_H

#include <stddef.h>

#define HP_AUTO_DEFINE(type, destroy)                                                    \
    static inline void type##__auto(type **slot)                                         \
    {                                                                                    \
        destroy(*slot);                                                                  \
    }

#define hp_auto(type) __attribute__((cleanup(type##__auto), unused)) type

#define hp_steal(slot)                                                                   \
    __extension__({                                                                      \
        __typeof__(*(slot)) hp__taken = *(slot);                                         \
        *(slot) = NULL;                                                                  \
        hp__taken;                                                                       \
    })

#endif
