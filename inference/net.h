/* The networks as graphs, from a bundle's parameters alone.
 *
 * Keys and stage names are those of training/nets: golden tensors hold both
 * sides equal. A builder appends to an empty graph whose size it is told; after
 * it, hp_net_build() has checked the weights and planned the graph.
 */
#ifndef HP_INFERENCE_NET_H
#define HP_INFERENCE_NET_H

#include "base/json.h"
#include "base/yaml.h"
#include "inference/graph.h"
#include "inference/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HP_NET_LEVELS = 8 };

typedef enum hp_arch {
    HP_ARCH_UNET3D,
    HP_ARCH_UNET25D,
    HP_ARCH_HOURGLASS3D,
    HP_ARCH_SADT,
    HP_ARCHES
} hp_arch;

typedef struct hp_net_params {
    hp_arch arch;
    int grid[3];          /* z, y, x; unet3d and hourglass3d */
    double spacing_mm[3]; /* unet3d: z, y, x; unet25d: [1] = [2] in plane */
    struct {
        int levels, width[HP_NET_LEVELS], stride[HP_NET_LEVELS][3];
        int slices;         /* unet25d: input channels */
        double interval_mm; /* unet25d */
    } unet;
    struct {
        int stacks, levels; /* levels: of the hourglass; dims and modules have one more */
        int dim[HP_NET_LEVELS], modules[HP_NET_LEVELS];
        int stem, stem_kernel[3], stem_stride[3], res_stride[3], stride[HP_NET_LEVELS][3];
    } hourglass;
    struct {
        int depth, output_stride, codeword_dim, codewords, classes;
        double width;
        bool mask_input;
    } sadt;
} hp_net_params;

/* `params` of a bundle stage (or of a golden file); a key that is not known is an
 * error that names its line when `yaml` is given. */
hp_code hp_net_params_read(const char *arch, const json_t *params, const hp_yaml *yaml,
                           hp_net_params *ret, hp_error *reterr);

/* The planned graph for inputs of `size` (z, y, x). Inputs: the image; SaDT also
 * the mask on its grid; with mask_input the image's last channel is the mask in
 * pixels. Outputs, in order: unet "logit"; hourglass "hm" "whd" "off"; sadt
 * "logit". */
hp_code hp_net_build(const hp_net_params *p, hp_weights *w, const int size[3],
                     hp_graph **ret, hp_error *reterr);

/* Size of the grid of SaDT's descriptors for an image side. */
int hp_net_sadt_cells(const hp_net_params *p, int side);
/* The hourglass's stride from input to heat map. */
void hp_net_heat_stride(const hp_net_params *p, int ret[3]);

/* Inside the room: the builders, and what they share. */
void hp_net__unet(hp_graph *g, const hp_net_params *p, hp_weights *w, const int size[3]);
void hp_net__hourglass(hp_graph *g, const hp_net_params *p, hp_weights *w,
                       const int size[3]);
void hp_net__sadt(hp_graph *g, const hp_net_params *p, hp_weights *w, const int size[3]);

typedef struct hp_net_conv {
    int nd, cout, k[3], stride[3], dilation[3];
    bool relu, bias;
} hp_net_conv;
/* Takes "KEY.weight" (and "KEY.bias") and appends the convolution. */
int hp_net__conv(hp_graph *g, hp_weights *w, int x, const hp_net_conv *c, int add,
                 const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* conv3 ReLU conv3 + skip ReLU under "KEY.conv1", ".conv2", ".skip". */
int hp_net__block(hp_graph *g, hp_weights *w, int x, int nd, int cout,
                  const int stride[3], int dilation, const char *key);

#ifdef __cplusplus
}
#endif
#endif
