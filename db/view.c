#include "db/view.h"
