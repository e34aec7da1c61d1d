// SPDX-License-Identifier: Apache-2.0
// One look at a picture, as `LOOK` in model/cuda/looks.py lays it out: 144 bytes.
struct Look {
    unsigned long long origin[3];  // of each component: address of its upper left sample, upright
    int across[3];                 // bytes from a sample to the one on its right
    int down[3];                   // and to the one below
    int width[3];                  // samples; the second component has as many as the third
    int height[3];
    float matrix[9];               // components to red, green and blue, in levels of 255
    float offset[3];
    int wide;                      // samples of 16 bits
    int left, top;                 // where on the canvas the picture lies
    int inner_w, inner_h;          // and how large; 0 for an entry that is not used
    int ticket;                    // which request this is
};
