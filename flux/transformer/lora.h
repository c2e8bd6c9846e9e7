/* flux/transformer/lora.h: adapters as the transformer sees them.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Every linear layer has a slot: its name in diffusers
 * ("transformer_blocks.0.attn. to_q"), n and k. A FluxLora is a set of modules, one or
 * none a slot, with parameters in one flat fp32 buffer (and gradients in another), in the
 * order of the slots, A before B, each tensor's offset padded to 256 elements (fx.h: the
 * 8-bit optimiser's block). */
#pragma once

#include "flux/transformer/config.h"
#include "kernels/fx.h"

G_BEGIN_DECLS

typedef struct {
  char name[64]; /* without "transformer." */
  gint64 n, k;
  gboolean trainable; /* modulation layers, embedders and the last layer can be loaded,
                         not trained */
} FluxLoraSlot;

/* All slots of a configuration, in file order: double blocks 0.., single blocks 0.., then
 * embedders and the last layer. Owned by the caller. */
FluxLoraSlot *flux_lora_slots (const FluxConfig *c, guint *n_slots);

typedef struct _FluxLora FluxLora;

typedef struct {
  gsize offset; /* elements into the flat buffers */
  gsize n_elements;
  gint64 rows, cols;
  guint slot;
  gboolean is_b;
} FluxLoraTensor;

/* targets: comma-separated suffixes of slot names ("to_q,to_k,to_v,to_out.0"), or a
 * preset: "attention" (that list, the default), "attention-all" (also add_*_proj,
 * to_add_out), "all-linear" (every trainable slot). An entry that matches nothing is an
 * error naming it. */
FluxLora *flux_lora_new (const FluxConfig *c, fx_backend *b, int rank, float alpha,
    const char *targets, gboolean with_gradients, GError **error);
/* The parameters of `of`, which must outlive it, as they are at any time: with a
 * multiplier of its own and without gradients. */
FluxLora *flux_lora_new_view (const FluxLora *of);
void flux_lora_free (FluxLora *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FluxLora, flux_lora_free)

/* A ~ N(0, (1/r)^2), B = 0 (peft "gaussian"; facts.md section 4), drawn with fx_philox.
 */
gboolean flux_lora_init_gaussian (FluxLora *self, guint64 seed, GError **error);
int flux_lora_get_rank (FluxLora *self);
float flux_lora_get_alpha (FluxLora *self);
const FluxLoraTensor *flux_lora_get_tensors (FluxLora *self, guint *n);
const FluxLoraSlot *flux_lora_get_slot (FluxLora *self, guint slot);
gsize flux_lora_n_parameters (FluxLora *self); /* without padding */
gsize flux_lora_n_flat (FluxLora *self);       /* with padding */
float *flux_lora_parameters (FluxLora *self);  /* backend pointers, flat */
float *flux_lora_gradients (FluxLora *self);
/* Multiplies the effect of the adapter (the sampler's scale); 1 by default. */
void flux_lora_set_multiplier (FluxLora *self, float multiplier);
/* The module on a slot, or NULL; valid until the FluxLora is freed or its multiplier set.
 */
const fx_lora *flux_lora_module (FluxLora *self, guint slot);

/* ---- files: flux/adapters/ ---- */

/* What came of reading a file. */
typedef struct {
  const char *format; /* who writes such files: "diffusers", "kohya", ...; static */
  guint n_layers;     /* that the adapter changes */
  guint n_tensors;    /* in the file */
  guint n_left_out;   /* of them, which fit no layer; 0 unless strict is FALSE */
  char *left_out;     /* the first few of their names, or NULL */
} FluxLoraReport;

void flux_lora_report_clear (FluxLoraReport *report);

/* Reads an adapter of any of these layouts, which it tells apart by the names:
 *   diffusers/PEFT and ai-toolkit  transformer.NAME.lora_A.weight [r, k], .lora_B.weight
 *                                  [n, r]; alpha from lora_adapter_metadata, .alpha, else
 * r kohya      lora_unet_ORIGINAL_NAME.lora_down.weight, .lora_up.weight, .alpha
 *   OneTrainer lora_transformer_NAME.lora_down.weight, ...
 *   ComfyUI    diffusion_model.ORIGINAL.NAME.lora_A or lora_down.weight, ...
 *   BFL, fal   [base_model.model.]ORIGINAL.NAME.lora_A.weight, ...
 *   XLabs      double_blocks.N.processor.qkv_lora1.down.weight, ...
 * Modules on a fused layer of the original model are split. Ranks may differ from module
 * to module. Tensors that fit no layer are an error that names them, or with strict FALSE
 * left out and told of in report (which may be NULL; to be cleared after success); DoRA
 * and LyCORIS, wrong shapes, missing halves, NaN and Inf are always one. */
FluxLora *flux_lora_read (const FluxConfig *c, fx_backend *b, const char *path,
    gboolean strict, gboolean with_gradients, FluxLoraReport *report, GError **error);
/* The same, strict. */
FluxLora *flux_lora_load (const FluxConfig *c, fx_backend *b, const char *path,
    gboolean with_gradients, GError **error);

typedef enum {
  FLUX_LORA_DIFFUSERS, /* with {"format":"pt"} and lora_adapter_metadata as diffusers'
                          loaders/lora_base.py:1098-1108 writes them */
  FLUX_LORA_KOHYA,
  FLUX_LORA_COMFY
} FluxLoraFormat;

/* Writes what flux_lora_read() and the tool read back to the same weight change. */
gboolean
flux_lora_write (FluxLora *self, const char *path, FluxLoraFormat format, GError **error);
/* The same in diffusers' layout. */
gboolean flux_lora_save (FluxLora *self, const char *path, GError **error);

G_END_DECLS
